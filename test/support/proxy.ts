/**
 * For tests of the backend: a connection over a socket pair, used byte by byte, without a loop. And
 * a machine whose backend is a separate process.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ProgramSet } from "../../src/abi/index.ts";
import type { RingFormat } from "../../src/devices/format.ts";
import { sring } from "../../src/devices/sring/host.ts";
import { QueuePair } from "../../src/engine/pair.ts";
import { BackendConnection } from "../../src/frontends/proxy/connection.ts";
import { ProxyDeviceModel } from "../../src/frontends/proxy/device-model.ts";
import { type BackendOffer, ProxyHypervisor } from "../../src/frontends/proxy/hypervisor.ts";
import { readProgramObject } from "../../src/frontends/proxy/program-object.ts";
import { GuestDriver } from "../../src/guest/driver.ts";
import { LocalMemory } from "../../src/guest/memory.ts";
import { Epoll } from "../../src/os/epoll.ts";
import { createEventFd } from "../../src/os/eventfd.ts";
import { close } from "../../src/os/fd.ts";
import { createMemfd, type Mapping, mapAnonymous, mapFile } from "../../src/os/memory.ts";
import { SocketReceiver, sendMessage, socketPair } from "../../src/os/unix-socket.ts";
import { frameOf, numberOf, TestPort } from "./guest.ts";

/** Builds a message: type, flags, size of the payload, payload; all little endian. */
export function message(
  type: number,
  payload: Uint8Array = new Uint8Array(0),
  flags = 1,
): Uint8Array {
  const bytes = new Uint8Array(12 + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, flags, true);
  view.setUint32(8, payload.length, true);
  bytes.set(payload, 12);
  return bytes;
}

/** Returns u32 words as bytes. */
export function words(...values: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

/** Returns the payload of SET_MEM_TABLE: regions as [address, size, offset]. */
export function table(...regions: [number, number, number][]): Uint8Array {
  const payload = new Uint8Array(264);
  const view = new DataView(payload.buffer);
  view.setUint32(0, regions.length, true);
  for (const [i, [address, size, offset]] of regions.entries()) {
    view.setBigUint64(8 + 32 * i, BigInt(address), true);
    view.setBigUint64(16 + 32 * i, BigInt(size), true);
    view.setBigUint64(32 + 32 * i, BigInt(offset), true);
  }
  return payload;
}

export interface RawReply {
  readonly type: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  readonly fds: readonly number[];
}

const MEMORY = 1 << 20;
const BUFFER = 4096;

export class ProxyBench {
  readonly port = new TestPort();
  readonly warnings: string[] = [];
  /** The reason passed to `ended`; null while the connection lasts. */
  problem: string | null = null;
  readonly pair: QueuePair;
  readonly frontend: BackendConnection;
  /** Guest memory: 1 MiB, at guest address 0 after `SET_MEM_TABLE`. */
  readonly memfd = createMemfd("guest", MEMORY, { seal: true });
  readonly #mapping: Mapping = mapFile(this.memfd, 0, MEMORY, { write: true });
  readonly view = new DataView(this.#mapping.view(0, MEMORY));
  readonly #epoll = new Epoll(16);
  readonly #buffer = mapAnonymous(2 * BUFFER);
  readonly #out = new Uint8Array(this.#buffer.view(0, BUFFER));
  readonly #in = new DataView(this.#buffer.view(BUFFER, BUFFER));
  readonly #receiver = new SocketReceiver();
  #fd = -1;
  readonly eventFds: number[] = [];

  constructor(device: RingFormat = sring, allowUnverified = false) {
    this.pair = new QueuePair({
      ...{ port: this.port, rxVector: 0, txVector: 1 },
      fire: (vector) => this.frontend.backend.fire(vector),
    });
    this.frontend = new BackendConnection({
      ...{ device, features: 0x1ff, pair: this.pair, path: null, reconnect: false },
      allowUnverified,
      log: (level, text) => {
        if (level === "warn") this.warnings.push(text);
      },
      ended: (problem) => {
        this.problem = problem;
      },
    });
    this.frontend.register(this.#epoll);
    this.connect();
  }

  /** Opens a new connection and closes the old one, if any. */
  connect(): void {
    if (this.#fd >= 0) close(this.#fd);
    const [ours, theirs] = socketPair();
    this.#fd = ours;
    this.problem = null;
    // Reads the rest of the old one first.
    this.turn();
    this.frontend.adopt(theirs);
  }

  newEventFd(): number {
    const fd = createEventFd();
    this.eventFds.push(fd);
    return fd;
  }

  /** Closes the descriptors of `eventFds` except the first few. */
  closeEventFds(keep = 0): void {
    for (const fd of this.eventFds.splice(keep)) close(fd);
  }

  /** Sends bytes, with descriptors attached to the first byte, and runs the connection. */
  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#out.set(bytes);
    const n = sendMessage(this.#fd, this.#buffer.address, bytes.length, fds);
    if (n !== bytes.length) throw new Error(`sent ${n} of ${bytes.length} bytes`);
    this.turn();
  }

  turn(): void {
    for (let n = 0; n < 40 && this.frontend.handle() > 0; n++);
  }

  /** Returns the next reply; null if none has come, "closed" after the end. */
  reply(): RawReply | "closed" | null {
    let n: number;
    try {
      n = this.#receiver.receiveAt(this.#fd, this.#buffer.address + BUFFER, 12);
    } catch {
      return "closed";
    }
    if (n < 0) return null;
    if (n === 0) return "closed";
    const fds = [...this.#receiver.fds];
    const view = this.#in;
    const [type, flags, size] = [0, 4, 8].map((at) => view.getUint32(at, true));
    if (size > 0) this.#receiver.receiveAt(this.#fd, this.#buffer.address + BUFFER, size);
    return { type, flags, fds, payload: new Uint8Array(view.buffer.slice(0, size)) };
  }

  /** Sends one request and returns its reply. */
  ask(type: number, payload?: Uint8Array, fds: readonly number[] = []): RawReply | "closed" | null {
    this.send(message(type, payload), fds);
    return this.reply();
  }

  /**
   * Runs the handshake up to registered contexts (receive at 0x10000, transmit at 0x20000, 16
   * buffers) and event descriptors.
   */
  configure(): void {
    const steps: [number, Uint8Array, number[]][] = [
      [5, table([0, MEMORY, 0]), [this.memfd]],
      [2, words(0, 0), []],
      [3, words(1, 1, 16, 16), []],
      [6, words(0, 0, 0x10000, 0), []],
      [6, words(1, 0, 0x20000, 0), []],
    ];
    for (const queue of [0, 1]) {
      for (const type of [7, 8]) steps.push([type, words(queue), [this.newEventFd()]]);
    }
    for (const [type, payload, fds] of steps) {
      const reply = this.ask(type, payload, fds);
      if (reply === null || reply === "closed" || reply.flags !== 1) {
        throw new Error(`request ${type} was refused: ${this.frontend.backend.lastRefusal}`);
      }
    }
  }

  close(): void {
    this.frontend.close();
    this.closeEventFds();
    close(this.#fd);
    close(this.memfd);
    this.#mapping.unmap();
    this.#buffer.unmap();
    this.#receiver.close();
    this.#epoll.close();
  }
}

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
/** A machine in this process, with a guest's driver and a backend in a separate process. */
export class Machine {
  static readonly #children = new Set<ChildProcess>();
  static #folder = "";
  readonly bufs: { readonly rxBufs: number; readonly txBufs: number };
  readonly memory: LocalMemory;
  readonly hypervisor: ProxyHypervisor;
  backend!: ChildProcess;
  driver!: GuestDriver;
  model!: ProxyDeviceModel;
  offer!: BackendOffer;
  programs!: ProgramSet;

  constructor(name: string, { bufs = 64, mib = 4 } = {}) {
    this.bufs = { rxBufs: bufs, txBufs: bufs };
    this.memory = new LocalMemory(mib << 20);
    if (Machine.#folder === "") Machine.#folder = mkdtempSync(join(tmpdir(), "bpfhv-machine-"));
    this.hypervisor = new ProxyHypervisor(join(Machine.#folder, name));
  }

  /** Starts a backend process; the hypervisor blocks until it connects. */
  startBackend(...words: string[]): void {
    const all = [MAIN, "backend", "-p", this.hypervisor.path, "-b", "loopback", ...words];
    this.backend = spawn(process.execPath, all, { stdio: "ignore" });
    Machine.#children.add(this.backend);
    assert.ok(this.hypervisor.accept(20_000), "a backend connects");
  }

  /** Sends SET_MEM_TABLE with the memory in this many regions. */
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

  /** Sequence A: the machine starts, and firmware then changes the memory map. */
  boot(): void {
    this.setMemory();
    this.setMemory(2);
    this.handshake();
    this.setMemory(4);
    this.setMemory();
  }

  /** Sends the device model's requests to a new backend. */
  handshake(features = 0): void {
    this.offer = this.hypervisor.start(this.bufs, features);
    this.programs = readProgramObject(this.offer.programsFd);
    close(this.offer.programsFd);
  }

  /** Sequence B: the driver is loaded. */
  loadDriver(): void {
    const { hypervisor, bufs, offer, programs } = this;
    this.model = new ProxyDeviceModel(hypervisor, bufs, offer, programs);
    this.driver = new GuestDriver(this.model, this.memory, { form: "v1" });
    for (const queue of [0, 1]) this.hypervisor.setContext(queue, 0);
  }

  /** Sends through the loopback and waits for the packets. */
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
    Machine.#children.delete(backend);
    return status;
  }

  /** Ends every running backend. */
  static cleanUp(): void {
    for (const child of Machine.#children) child.kill("SIGKILL");
    if (Machine.#folder !== "") rmSync(Machine.#folder, { recursive: true, force: true });
  }
}
