/** What a kernel writes when something in it went wrong, and how a test asks for it. */
import assert from "node:assert/strict";
import type { Guest } from "./harness.ts";

export const ALARM =
  /WARNING:|BUG:|\bOops\b|general protection|Call Trace|UBSAN:|KASAN:|DMA-API: .*(?:leak|error|not|overlap|mapp)|ODEBUG:|refcount_t:|INFO: (?:possible|task|rcu|suspicious)|soft lockup|Kernel panic|unreferenced object/;

/** Fails if the guest's kernel raised an alarm since it was started; shows what it said. */
export function assertNoAlarm(guest: Guest): void {
  const log = guest.serialLog();
  const at = log.search(ALARM);
  if (at >= 0)
    assert.fail(`the guest's kernel says: ${log.slice(Math.max(0, at - 300), at + 3000)}`);
}

/** In a debug kernel, looks for memory that nothing points at any more. A no-op in others. */
export async function assertNoLeak(guest: Guest): Promise<void> {
  const file = "/sys/kernel/debug/kmemleak";
  // What was freed a moment ago may still be found in registers and stacks: only the second look
  // counts.
  const script = `[ -e ${file} ] || exit 0; echo scan >${file}; sleep 6; echo scan >${file}; head -c 4000 ${file}`;
  const found = await guest.check(script, { timeoutMs: 240_000 });
  assert.equal(found.trim(), "", `kmemleak: ${found}`);
}

/**
 * Free memory of the guest, in KiB, once page pools are released, which happens a second after
 * their last page. With the pages on each CPU's list: MemAvailable and MemFree do not count those,
 * and there can be megabytes.
 */
export async function freeKiB(guest: Guest): Promise<number> {
  const sum =
    "awk '/^MemFree:/ { n += $2 } /^ +count:/ { n += 4 * $2 } END { print n }' /proc/meminfo /proc/zoneinfo";
  return Number(await guest.check(`sync; sleep 2; ${sum}`));
}
