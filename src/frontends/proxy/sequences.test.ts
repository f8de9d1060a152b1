/** What a machine asks of a backend from its start to its end, in the orders that the original QEMU fork uses. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { REG } from "../../abi/index.ts";
import type { GuestDriver } from "../../guest/driver.ts";
import { GuestDriver as Driver } from "../../guest/driver.ts";
import { LocalMemory } from "../../guest/memory.ts";
import { frameOf, numberOf } from "../../guest/testing.ts";
import { close } from "../../os/fd.ts";
import { ProxyDeviceModel } from "./device-model.ts";
import { BackendError, type BackendOffer, ProxyHypervisor, RefusedError } from "./hypervisor.ts";
import { readProgramObject } from "./program-object.ts";

const MAIN = fileURLToPath(new URL("../../cli/main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-sequences-"));
const BUFS = { rxBufs: 64, txBufs: 64 };
const children = new Set<ChildProcess>();

after(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

class Machine {
  readonly memory = new LocalMemory(4 << 20);
  readonly hypervisor: ProxyHypervisor;
  backend!: ChildProcess;
  driver!: GuestDriver;
  model!: ProxyDeviceModel;
  offer!: BackendOffer;

  constructor(name: string) {
    this.hypervisor = new ProxyHypervisor(join(folder, name));
  }

  /** A backend process; the hypervisor waits for it without giving control back. */
  startBackend(...words: string[]): void {
    const all = [MAIN, "backend", "-p", this.hypervisor.path, "-b", "loopback", ...words];
    this.backend = spawn(process.execPath, all, { stdio: "ignore" });
    children.add(this.backend);
    assert.ok(this.hypervisor.accept(20_000), "a backend connects");
  }

  /** SET_MEM_TABLE with the memory in as many pieces. */
  setMemory(pieces = 1): void {
    const [range] = this.memory.ranges;
    const size = range.size / pieces;
    this.hypervisor.setMemory(
      Array.from({ length: pieces }, (_, i) => ({
        ...{ fd: this.memory.fd, size, address: range.address + i * size },
        fileOffset: range.fileOffset + i * size,
      })),
    );
  }

  /** Sequence A: the machine's start. Firmware then changes the memory map. */
  boot(): void {
    this.setMemory();
    this.setMemory(2);
    this.offer = this.hypervisor.start(BUFS, 0);
    this.setMemory(4);
    this.setMemory();
  }

  /** Sequence B: the driver is loaded. */
  loadDriver(): void {
    const programs = readProgramObject(this.offer.programsFd);
    close(this.offer.programsFd);
    this.model = new ProxyDeviceModel(this.hypervisor, BUFS, this.offer, programs);
    this.driver = new Driver(this.model, this.memory, { form: "v1" });
    for (const queue of [0, 1]) this.hypervisor.setContext(queue, 0);
  }

  /** Sends through the loopback and waits for what comes back. */
  exchange(from: number, count: number): void {
    const got: number[] = [];
    for (let n = 0; n < count; n++) assert.ok(this.driver.send(0, frameOf(from + n)));
    const end = performance.now() + 10_000;
    while (got.length < count && performance.now() < end) {
      this.driver.receive(0, (frame) => got.push(numberOf(frame)));
      this.driver.clean(0);
    }
    assert.deepEqual(
      got,
      Array.from({ length: count }, (_, n) => from + n),
    );
  }

  async end(): Promise<number | null> {
    const { backend } = this;
    const exit = new Promise<number | null>((resolve) => backend.once("exit", resolve));
    this.hypervisor.close();
    this.memory.close();
    const status = await exit;
    children.delete(backend);
    return status;
  }
}

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
    machine.driver.refill(0);
    machine.driver.enable();
    machine.exchange(100 * round, 50);
  }
  // A reboot leaves stale contexts behind; the next driver brings its own.
  machine.driver.disable();
  machine.offer = machine.hypervisor.start(BUFS, 0);
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

test("a feature write while packets flow is refused, and they go on flowing", async () => {
  const machine = new Machine("features");
  machine.startBackend();
  machine.boot();
  machine.loadDriver();
  machine.driver.open();
  machine.model.write(0, REG.FEATURES, 0);
  assert.equal(machine.model.refused, 1);
  machine.exchange(0, 20);
  assert.equal(await machine.end(), 0);
});

test("a hard reset, of which nobody tells: the backend outlives what the next guest makes of the memory", async () => {
  const machine = new Machine("reset");
  machine.startBackend();
  machine.boot();
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(0, 20);
  // Firmware and a new kernel write over rings and buffers, and the backend still serves them.
  const [range] = machine.memory.ranges;
  const all = new Uint8Array(machine.memory.view(range.address, range.size));
  for (const byte of [0xff, 0x00, 0x5a]) {
    all.fill(byte);
    for (const queue of [0, 1]) machine.hypervisor.kick(queue);
    await sleep(50);
    machine.hypervisor.request("GET_FEATURES");
  }
  // The new driver finds it running; told to stop, it does, and serves the new contexts.
  assert.throws(() => machine.hypervisor.setFeatures(0), RefusedError);
  for (const direction of ["RX", "TX"] as const) machine.hypervisor.disable(direction);
  machine.offer = machine.hypervisor.start(BUFS, 0);
  machine.loadDriver();
  machine.driver.open();
  machine.exchange(1000, 50);
  assert.equal(machine.model.refused, 0);
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
  for (let n = 0; !machine.hypervisor.upgradeWanted(); n++) {
    assert.ok(n < 200, "within 10 s");
    await sleep(50);
  }
  // As the original's QEMU: an interrupt to the guest, and the programs that are there.
  machine.driver.close();
  machine.offer = { ...machine.offer, programsFd: machine.hypervisor.request("GET_PROGRAMS").fd };
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
  machine.offer = machine.hypervisor.start(BUFS, 0);
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
      assert.ok(machine.hypervisor.accept(20_000));
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
