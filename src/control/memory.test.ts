/** What each further NIC of a process costs in resident memory. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { TestNic } from "../../test/support/nics.ts";
import { nicWorker } from "./waiting-worker.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-memory-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const MOST_MIB = 20;
const FURTHER = 3;

/** MiB, without the guests' memory, which is theirs. */
function resident(): number {
  let [kib, isGuests] = [0, false];
  for (const line of readFileSync("/proc/self/smaps", "utf8").split("\n")) {
    if (/^[0-9a-f]+-/.test(line)) isGuests = line.includes("memfd:bpfhv-guest");
    const size = /^Rss: +(\d+) kB/.exec(line);
    if (size !== null && !isGuests) kib += Number(size[1]);
  }
  return kib / 1024;
}

/** Starts a NIC and moves packets, so that its loop is compiled. */
async function start(name: string): Promise<TestNic> {
  const nic = new TestNic(folder, name, { kind: "source" }, nicWorker());
  await nic.handle.started();
  await nic.ship();
  const guest = nic.attach();
  await guest.move(4000);
  guest.close();
  return nic;
}

test(`each further NIC of a process takes at most ${MOST_MIB} MiB of memory`, async (t) => {
  const nics = [await start("first")];
  const first = resident();
  for (let n = 1; n <= FURTHER; n++) nics.push(await start(`further${n}`));
  const each = (resident() - first) / FURTHER;
  t.diagnostic(`${first.toFixed(1)} MiB with one NIC, ${each.toFixed(1)} MiB for each further one`);
  assert.ok(each <= MOST_MIB, `${each.toFixed(1)} MiB`);
  for (const nic of nics) await nic.stop();
});
