/** Guest and NIC in two processes: shared memory, vfio-user, eventfds; no VMM. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { frameOf } from "../../test/support/guest.ts";
import { until } from "../../test/support/os.ts";
import { statusOf } from "../control/client.ts";
import type { NicStatus } from "../nic/status.ts";
import { GuestDriver } from "./driver.ts";
import { LocalMemory } from "./memory.ts";
import { VfioUserClient } from "./vfio-user-client.ts";

const MAIN = fileURLToPath(new URL("../cli/main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-two-"));
const socket = join(folder, "nic.sock");
let server: ChildProcess;

const status = () => statusOf(socket) as Promise<NicStatus>;

before(async () => {
  const words = [MAIN, "serve", "--socket", socket, "--net", "source", "--log-level", "silent"];
  server = spawn(process.execPath, words, { stdio: "ignore" });
  await until("the server's reply", () => status().catch(() => null));
});

after(() => {
  server.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

test("packets and interrupts pass both ways between two processes", async () => {
  const memory = new LocalMemory(16 << 20);
  const client = new VfioUserClient(socket, memory, 3);
  const driver = new GuestDriver(client, memory);
  driver.open();
  assert.equal((await status()).step, "enabled");

  let sent = 0;
  let received = 0;
  const deadline = performance.now() + 60_000;
  while ((sent < 2000 || received < 2000) && performance.now() < deadline) {
    if (sent < 2000 && driver.send(0, frameOf(sent))) sent++;
    driver.receive(0, (frame) => {
      assert.equal(frame.length, 60);
      assert.equal(Buffer.from(frame.subarray(42, 60)).toString(), "netmap pkt-gen DIR");
      received++;
    });
    if (sent % 100 === 0) await sleep(1);
  }
  assert.equal(sent, 2000);
  assert.ok(received >= 2000);
  assert.ok(client.interrupts(0) > 0, "receive interrupts came");

  driver.disable();
  const { queues, programs } = await status();
  assert.equal(programs, "verified");
  assert.equal(queues[1].counters.packets, 2000);
  client.close();
  memory.close();
});

test("NIC is free for the next guest when its guest disconnects", async () => {
  for (let n = 0; n < 3; n++) {
    const memory = new LocalMemory(16 << 20);
    const client = new VfioUserClient(socket, memory, 3);
    const driver = new GuestDriver(client, memory, { form: n === 1 ? "v1" : "helperfree" });
    driver.open();
    assert.ok(driver.send(0, frameOf(n)));
    client.close();
    memory.close();
    await until("the NIC's reset", async () => (await status()).step === "no guest");
  }
});
