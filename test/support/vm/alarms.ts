/** Alarms of a guest's kernel: warnings in its log, and memory leaks. */
import assert from "node:assert/strict";
import type { Guest } from "./harness.ts";

export const ALARM =
  /WARNING:|BUG:|\bOops\b|general protection|Call Trace|UBSAN:|KASAN:|DMA-API: .*(?:leak|error|not|overlap|mapp)|ODEBUG:|refcount_t:|INFO: (?:possible|task|rcu|suspicious)|soft lockup|Kernel panic|unreferenced object/;

/** Fails if the guest's kernel logged an alarm since its start, and shows it. */
export function assertNoAlarm(guest: Guest): void {
  const log = guest.serialLog();
  const at = log.search(ALARM);
  if (at >= 0)
    assert.fail(`the guest's kernel says: ${log.slice(Math.max(0, at - 300), at + 3000)}`);
}

/** Searches for leaked memory in a debug kernel. Does nothing in other kernels. */
export async function assertNoLeak(guest: Guest): Promise<void> {
  const file = "/sys/kernel/debug/kmemleak";
  // Registers and stacks may still hold pointers to what was
  // just freed: only the second scan counts.
  const script = `[ -e ${file} ] || exit 0; echo scan >${file}; sleep 6; echo scan >${file}; head -c 4000 ${file}`;
  const found = await guest.check(script, { timeoutMs: 240_000 });
  assert.equal(found.trim(), "", `kmemleak: ${found}`);
}

/**
 * Returns the guest's free memory in KiB, after page pools are released, which happens a second
 * after their last page. Includes the pages on per-CPU lists: MemAvailable and MemFree do not count
 * those, and they can be megabytes.
 */
export async function freeKiB(guest: Guest): Promise<number> {
  const sum =
    "awk '/^MemFree:/ { n += $2 } /^ +count:/ { n += 4 * $2 } END { print n }' /proc/meminfo /proc/zoneinfo";
  return Number(await guest.check(`sync; sleep 2; ${sum}`));
}
