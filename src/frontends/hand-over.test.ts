/**
 * A NIC behind vfio-user is handed over to another server and another NIC, as two workers would do
 * it: records as JSON, descriptors beside them. The guest's driver and the VMM notice nothing.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { frameOf, numberOf, TestPort } from "../../test/support/guest.ts";
import { dup, openFds, openFdsOnce } from "../../test/support/os.ts";
import { restored, saved } from "../../test/support/records.ts";
import { message, pack, RawClient, u32s, VERSION_PAYLOAD } from "../../test/support/vfio-user.ts";
import type { RingFormat } from "../devices/format.ts";
import { programSets } from "../devices/program-set.ts";
import { FORMATS } from "../devices/registry.ts";
import { QueuePair } from "../engine/pair.ts";
import { GuestDriver, type NicTransport } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import { Nic } from "../nic/nic.ts";
import { restoreNic, saveNic } from "../nic/persist.ts";
import { createEventFd, drainEventFd } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import { socketPair } from "../os/unix-socket.ts";
import { VfioUserServer } from "../vfio-user/index.ts";
import type { ServerRecord } from "../vfio-user/persist.ts";
import { nicAsPciDevice } from "./vfio-user.ts";

const VECTORS = 3;

/** What a worker has: a NIC, its port, and a server without a client. */
class Worker {
  readonly pair: QueuePair;
  readonly nic: Nic;
  readonly server: VfioUserServer;

  constructor(device: RingFormat, port: TestPort) {
    const fire = (vector: number): void => this.server.fire(vector);
    this.pair = new QueuePair({ port, rxVector: 0, txVector: 1, fire });
    const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
    const sizes = { pairs: 1, rxBufs: 16, txBufs: 16, doorbellSize: 8 };
    const config = { device, mac, mtu: 1500, linkSpeed: 0, ...sizes };
    this.nic = new Nic(config, [this.pair]);
    this.nic.ship(programSets(device, config));
    this.server = new VfioUserServer(nicAsPciDevice(this.nic));
  }

  turn(): number {
    this.server.handleReadable();
    this.nic.memoryChanged();
    return this.pair.drainTx() + this.pair.fillRx();
  }
}

/** The VMM: what the guest's driver does becomes messages, and the worker answers them. */
class Vmm implements NicTransport {
  readonly client: RawClient;
  readonly vectors = Array.from({ length: VECTORS }, createEventFd);
  worker: Worker;
  readonly #device: RingFormat;
  readonly #port: TestPort;

  constructor(device: RingFormat, port: TestPort, memory: LocalMemory) {
    this.#device = device;
    this.#port = port;
    this.worker = new Worker(device, port);
    const [a, b] = socketPair();
    this.worker.server.adopt(a);
    this.client = new RawClient(b);
    this.#call(1, VERSION_PAYLOAD);
    const [{ address, size }] = memory.ranges;
    this.#call(2, pack([4, 32], [4, 3], [8, 0], [8, address], [8, size]), [memory.fd]);
    for (const [vector, fd] of this.vectors.entries()) {
      this.#call(8, u32s(20, 0x24, 2, vector, 1), [fd]);
    }
    this.#call(10, pack([8, 4], [4, 7], [4, 2], [2, 6]));
  }

  #call(command: number, payload: Buffer, fds: readonly number[] = []): Buffer {
    this.client.send(message(command, payload), fds);
    this.worker.server.handleReadable();
    this.worker.nic.memoryChanged();
    const [answer] = this.client.answers().answers;
    assert.deepEqual([answer.command, answer.errno], [command, 0]);
    return answer.payload;
  }

  read(bar: number, offset: number): number {
    return this.#call(9, pack([8, offset], [4, bar], [4, 4])).readUInt32LE(16);
  }

  /** Posted, as QEMU does. The worker reads it when it next looks. */
  write(bar: number, offset: number, value: number): void {
    const access = pack([8, offset], [4, bar], [4, 4], [4, value]);
    this.client.send(message(10, access, { flags: 0x10 }));
  }

  handOver(): void {
    const before = this.worker;
    const server = saved((fds) => before.server.save(fds));
    const nic: unknown = JSON.parse(JSON.stringify(saveNic(before.nic)));
    const next = new Worker(this.#device, this.#port);
    restored(server, (record, fds) => next.server.restore(record, fds));
    restoreNic(next.nic, nic);
    assert.deepEqual(JSON.parse(JSON.stringify(saveNic(next.nic))), nic);
    before.server.abandon();
    before.server.close();
    this.worker = next;
  }

  close(): void {
    this.client.close();
    this.worker.server.close();
    for (const fd of this.vectors) close(fd);
  }
}

for (const device of FORMATS) {
  test(`${device.name}: guest and VMM go on when the NIC is handed over in traffic`, () => {
    const before = openFds();
    const memory = new LocalMemory(4 << 20);
    const port = new TestPort();
    const vmm = new Vmm(device, port, memory);
    vmm.handOver();
    const driver = new GuestDriver(vmm, memory, {});
    vmm.handOver();
    driver.open();
    const sent: number[] = [];
    const given: number[] = [];
    const received: number[] = [];
    for (let n = 0; n < 120; n++) {
      if (driver.send(0, frameOf(n))) sent.push(n);
      port.incoming.push(frameOf(1000 + n));
      given.push(1000 + n);
      if (n % 3 === 0) vmm.worker.turn();
      // Posted writes that nobody has read yet lie in the socket; descriptors go along.
      if (n % 7 === 0) vmm.handOver();
      if (n % 5 === 0) driver.receive(0, (frame) => received.push(numberOf(frame)));
      driver.clean(0);
    }
    for (let idle = 0; idle < 3; idle++) {
      if (vmm.worker.turn() > 0) idle = 0;
      driver.receive(0, (frame) => received.push(numberOf(frame)));
      driver.clean(0);
    }
    assert.ok(sent.length > 50, `${sent.length} frames were sent`);
    assert.deepEqual(port.sent.map(numberOf), sent);
    assert.deepEqual(received, given);
    assert.ok(drainEventFd(vmm.vectors[0]) > 0, "interrupts reach the VMM's eventfd");
    vmm.close();
    memory.close();
    assert.equal(openFdsOnce(before), before, "no descriptor left");
  });
}

test("nothing is handed over when the NIC's memory is not what its record says", () => {
  const memory = new LocalMemory(4 << 20);
  const other = new LocalMemory(4 << 20);
  const port = new TestPort();
  const vmm = new Vmm(FORMATS[0], port, memory);
  const driver = new GuestDriver(vmm, memory, {});
  driver.open();
  const { record, fds } = saved((list) => vmm.worker.server.save(list));
  const place = (record as ServerRecord).memory.files[0].fd;
  close(fds[place]);
  fds[place] = dup(other.fd);
  const next = new Worker(FORMATS[0], port);
  const restore = () =>
    restored({ record, fds }, (value, claimed) => next.server.restore(value, claimed));
  assert.throws(restore, {
    code: "RECORD",
    message: /memory\.files\[0\]\.id = .*the descriptor is/,
  });
  assert.deepEqual([next.server.connected, next.nic.step], [false, "no guest"]);
  for (const fd of fds) close(fd);
  next.server.close();
  driver.send(0, frameOf(1));
  vmm.worker.turn();
  assert.deepEqual(port.sent.map(numberOf), [1], "the first worker goes on");
  vmm.close();
  memory.close();
  other.close();
});
