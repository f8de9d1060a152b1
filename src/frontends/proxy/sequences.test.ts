/**
 * What a machine asks of a backend from its start to its end, in the orders that the original QEMU
 * fork uses.
 */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { frameOf, numberOf } from "../../../test/support/guest.ts";
import { until } from "../../../test/support/os.ts";
import { Machine } from "../../../test/support/proxy.ts";
import { REG } from "../../abi/index.ts";
import { BackendError, RefusedError } from "./hypervisor.ts";

after(() => Machine.cleanUp());

test("start, driver, up, down, up, reboot, unload: packets flow whenever they should", async () => {
  const machine = new Machine("life");
  machine.startBackend();
  machine.boot();
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(0, 50);
  // Down and up again on the same contexts, which are not initialised anew.
  for (let round = 0; round < 3; round++) {
    machine.driver.close();
    machine.driver.reopen();
    machine.exchange(100 * round, 50);
  }
  // A reboot leaves stale contexts behind; the next driver brings its own.
  machine.driver.disable();
  machine.handshake();
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(1000, 50);
  machine.driver.close();
  for (const queue of [0, 1]) machine.hypervisor.setContext(queue, 0);
  assert.throws(() => machine.hypervisor.enable("RX"), RefusedError);
  assert.equal(machine.model.refused, 0);
  assert.equal(await machine.end(), 0, "the end of the connection is an orderly end");
});

test("the memory table changes while packets flow", async () => {
  const machine = new Machine("memory");
  machine.startBackend();
  machine.boot();
  machine.loadDriver();
  machine.driver.open();
  for (let round = 0; round < 20; round++) {
    for (let n = 0; n < 20; n++) machine.driver.send(0, frameOf(n));
    machine.setMemory(1);
    const got: number[] = [];
    while (got.length < 20) machine.driver.receive(0, (frame) => got.push(numberOf(frame)));
    assert.deepEqual(got, [...Array(20).keys()]);
    machine.driver.clean(0);
  }
  assert.equal(await machine.end(), 0);
});

test("packets keep flowing when features are written", async () => {
  const machine = new Machine("features");
  machine.startBackend();
  machine.boot();
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(0, 20);
  // The original QEMU fork ends itself and its machine when this is refused.
  machine.model.write(0, REG.FEATURES, 0);
  assert.equal(machine.model.refused, 0);
  machine.exchange(20, 20);
  assert.equal(await machine.end(), 0);
});

test("a backend serves the next guest after an unannounced hard reset", async () => {
  const machine = new Machine("reset");
  machine.startBackend();
  machine.boot();
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(0, 20);
  // Firmware and a new kernel write over rings and buffers, and the backend still serves them.
  const [range] = machine.memory.ranges;
  const all = machine.memory.bytes(range.address, range.size);
  for (const byte of [0xff, 0x00, 0x5a]) {
    all.fill(byte);
    for (const queue of [0, 1]) machine.hypervisor.kick(queue);
    await sleep(50);
    machine.hypervisor.request("GET_FEATURES");
  }
  // The new driver finds it running, and does not know: features, contexts, enable.
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(1000, 50);
  assert.equal(machine.model.refused, 0, "or the fork would exit");
  assert.equal(await machine.end(), 0);
});

test("the upgrade descriptor is signalled on SIGUSR2; the guest opens its NIC anew", async () => {
  const machine = new Machine("signalled");
  machine.startBackend();
  machine.boot();
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(0, 20);
  assert.equal(machine.hypervisor.upgradeWanted(), false);
  machine.backend.kill("SIGUSR2");
  await until("the upgrade to be wanted", () => machine.hypervisor.upgradeWanted());
  // As the original's QEMU: an interrupt to the guest, and the programs that are there.
  machine.driver.close();
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(100, 20);
  assert.equal(machine.hypervisor.upgradeWanted(), false, "once");
  assert.equal(await machine.end(), 0);
});

test("a backend that dies, and a new one under a guest that is up: packets flow again", async () => {
  const machine = new Machine("upgrade");
  machine.startBackend();
  machine.boot();
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(0, 20);
  machine.backend.kill("SIGKILL");
  assert.throws(() => {
    for (;;) machine.hypervisor.request("GET_FEATURES");
  }, BackendError);
  machine.startBackend();
  machine.setMemory();
  machine.handshake();
  for (const queue of [0, 1]) machine.hypervisor.setInterrupt(queue, true);
  // The guest closes first: disabled although this backend was never enabled.
  machine.driver.close();
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(0, 20);
  assert.equal(await machine.end(), 0);
});

test("a backend that reconnects serves machine after machine, and holds nothing of the last", async () => {
  const path = "again";
  let machine = new Machine(path);
  machine.startBackend("--reconnect");
  const { backend } = machine;
  const fds = (): number => readdirSync(`/proc/${backend.pid}/fd`).length;
  const counts: number[] = [];
  for (let round = 0; round < 4; round++) {
    if (round > 0) {
      machine = new Machine(path);
      machine.backend = backend;
      assert.ok(machine.hypervisor.accept(60_000));
    }
    machine.boot();
    machine.loadDriver();
    machine.driver.open();
    machine.exchange(0, 20);
    counts.push(fds());
    machine.hypervisor.close();
    machine.memory.close();
  }
  assert.ok(Math.max(...counts.slice(1)) <= counts[1], `descriptors: ${counts}`);
  const exit = new Promise((resolve) => backend.once("exit", resolve));
  backend.kill("SIGTERM");
  assert.equal(await exit, 0);
});
