/** `bpfhv upgrade` against a server in another process, with a guest under traffic both ways. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { numberOf } from "../../test/support/guest.ts";
import { until } from "../../test/support/os.ts";
import { VERDICT } from "../abi/index.ts";
import { statusOf } from "../control/client.ts";
import { GuestDriver } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import { VfioUserClient } from "../guest/vfio-user-client.ts";
import type { NicStatus } from "../nic/status.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-upgrade-"));
const socket = join(folder, "vm1.sock");
let server: ChildProcess;

before(async () => {
  const words = [MAIN, "serve", "--socket", socket, "--net", "loopback", "--log-level", "silent"];
  server = spawn(process.execPath, words, { stdio: "ignore" });
  await until("the server", () => statusOf(socket).catch(() => null));
});

after(() => {
  server.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

function run(...words: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, "upgrade", socket, ...words], (error, out, err) => {
      resolve({ status: error === null ? 0 : Number(error.code), out, err });
    });
  });
}

/** A guest whose numbered packets come back. */
class Echo {
  readonly memory = new LocalMemory(32 << 20);
  readonly client = new VfioUserClient(socket, this.memory, 3);
  readonly driver: GuestDriver;
  sent = 0;
  received = 0;

  constructor(overlap: boolean, features = 0) {
    this.driver = new GuestDriver(this.client, this.memory, { overlap, features });
    this.driver.open();
  }

  async during<T>(work: Promise<T>): Promise<T> {
    let over = false;
    void work.finally(() => (over = true));
    for (let idle = 0; !over || idle < 20; idle++) {
      if (!over) this.send();
      this.turn();
      if (!over || this.sent !== this.received) idle = 0;
      await sleep(1);
    }
    assert.equal(this.received, this.sent);
    return work;
  }

  send(): void {
    const frame = new Uint8Array(60);
    // The loopback port drops beyond 512.
    for (let n = 0; n < 16 && this.sent - this.received < 200; n++) {
      new DataView(frame.buffer).setUint32(14, this.sent);
      if (!this.driver.send(0, frame)) break;
      this.sent++;
    }
  }

  turn(): void {
    this.driver.receive(0, (bytes) => assert.equal(numberOf(bytes), this.received++));
    this.driver.clean(0);
    this.driver.upgrade.step();
  }

  close(): void {
    this.client.close();
    this.memory.close();
  }
}

const nic = async () => (await statusOf(socket)) as NicStatus;

test("upgrade refuses and says why when the driver lacks OVERLAP, and packets flow on", async () => {
  const guest = new Echo(false);
  const { status, err } = await guest.during(run("--device", "vring_packed"));
  assert.equal(status, 1);
  assert.match(err, /cannot replace programs while packets flow \(OVERLAP\).*device stays/);
  assert.equal((await nic()).device, "sring");
  guest.close();
  await until("the guest to be gone", async () => (await nic()).step === "no guest");
});

test("upgrade replaces format and buffers under load, and prints what happened", async () => {
  const guest = new Echo(true);
  const done = await guest.during(run("--device", "vring_packed", "--rx-bufs", "64"));
  assert.deepEqual([done.status, done.err], [0, ""]);
  assert.match(done.out, /^set \d+ is running after \d+ ms, .* in flight, \d+ packets sent from/);
  const { device, queues } = await nic();
  assert.deepEqual([device, queues[0].bufs, queues[1].bufs], ["vring_packed", 64, 256]);
  const same = await guest.during(run("--rx-bufs", "64"));
  assert.deepEqual([same.status, same.out], [0, "nothing to change\n"]);

  guest.driver.upgrade.judge = () => ({ code: VERDICT.REFUSED, info: (2 << 24) | 17 });
  const refused = await guest.during(run("--device", "sring"));
  assert.equal(refused.status, 1);
  assert.match(refused.err, /was not taken: the guest refused a program \(program rxc, instruct/);
  assert.equal((await nic()).device, "vring_packed");

  guest.driver.upgrade.judge = () => ({ code: VERDICT.READY, info: 0 });
  const file = join(folder, "mine.ts");
  const host = new URL("../devices/sring/host.js", import.meta.url).href;
  writeFileSync(file, `export { sring as default } from ${JSON.stringify(host)};\n`);
  const json = await guest.during(run("--device", file, "--json"));
  assert.deepEqual([json.status, json.err], [0, ""]);
  const { upgrade } = JSON.parse(json.out) as { upgrade: { state: string } };
  assert.equal(upgrade.state, "done");
  assert.equal((await nic()).device, "sring");
  const edited = new URL("../devices/vring_packed/host.js", import.meta.url).href;
  writeFileSync(file, `export { vringPacked as default } from ${JSON.stringify(edited)};\n`);
  const again = await guest.during(run("--device", file));
  assert.deepEqual([again.status, again.err], [0, ""]);
  assert.equal((await nic()).device, "vring_packed");
  guest.close();
});

test("upgrade gives offloads to a NIC that was started for a format without them", async () => {
  const guest = new Echo(true, 0xffff);
  const done = await guest.during(run("--device", "sring_gso"));
  assert.deepEqual([done.status, done.err], [0, ""]);
  const { device, features } = await nic();
  assert.equal(device, "sring_gso");
  assert.ok(features.length > 0, "the guest selected some");
  guest.close();
});

test("upgrade is a wrong call when nothing is given", async () => {
  assert.equal((await run()).status, 2);
});
