/**
 * bpfhv-proxy messages to the backend, over a socket pair, while the guest overwrites its rings.
 */
import { FORMATS } from "../../../src/devices/registry.ts";
import type { Random } from "../../support/ebpf-fuzz/random.ts";
import { frameOf } from "../../support/guest.ts";
import { message, ProxyBench, table, words } from "../../support/proxy.ts";
import { expect, Find, type Resources, type Session, type Target } from "../target.ts";
import { ResourceLimit, resourcesOf, settledFds } from "./resources.ts";
import { FD_KINDS, type FdKind, StrangeFds } from "./strange-fds.ts";

/** A message in hexadecimal, its descriptors, and the guest's writes before it. */
type Step = readonly [
  hex: string,
  fds: readonly FdKind[],
  pokes: readonly (readonly [offset: number, value: number])[],
];
type Connection = { readonly device: number; readonly steps: readonly Step[] };

const STEPS = 30;
const REQUESTS = 15;
const WARM_UP_CHECKS = 20;
const SIZES = [0, 0, 8, 16, 0, 264, 16, 4, 4, 4, 0, 0, 0, 0];
const FRAME = frameOf(1);
const ODD = [
  0, 1, 2, 8, 9, 15, 16, 17, 256, 8192, 0x1000, 0x10000, 0x7fffffff, 0xfffff000, 0xffffffff,
];
const oddWord = (random: Random): number => (random.once(3) ? random.next() : random.pick(ODD));

/** Returns a payload that mostly has a valid size and valid numbers. */
function payloadOf(type: number, random: Random): Uint8Array {
  if (type === 3 && random.once(2)) {
    return words(1, 1, 16 << random.below(3), 16 << random.below(3));
  }
  if (type === 5 && !random.once(3)) {
    const cut = random.below(256) * 4096;
    const two: [number, number, number][] = [
      [0, cut, 0],
      [cut, 2 ** 20 - cut, cut],
    ];
    return random.once(2) ? table([0, 2 ** 20, 0]) : table(...two);
  }
  if (type === 6 && random.once(2)) return words(random.below(3), 0, random.below(256) * 4096, 0);
  if ((type === 7 || type === 8) && !random.once(4)) return words(random.below(3));
  const size = random.once(16) ? random.below(300) : (SIZES[type] ?? random.below(264));
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at + 4 <= size; at += 4) view.setUint32(at, oddWord(random), true);
  return bytes;
}

/** The requests of a well-behaved VMM: half of the connections get as far as a running queue. */
const START: readonly (readonly [number, Uint8Array, readonly FdKind[]])[] = [
  [5, table([0, 2 ** 20, 0]), ["memfd"]],
  [2, words(0, 0), []],
  [3, words(1, 1, 16, 16), []],
  [6, words(0, 0, 0x10000, 0), []],
  [6, words(1, 0, 0x20000, 0), []],
  [7, words(0), ["eventfd"]],
  [7, words(1), ["eventfd"]],
  [8, words(0), ["eventfd"]],
  [8, words(1), ["eventfd"]],
  [10, new Uint8Array(0), []],
  [11, new Uint8Array(0), []],
];

function generate(random: Random): Connection {
  const device = random.below(FORMATS.length);
  const steps: Step[] = [];
  if (random.once(2)) {
    for (const [type, payload, fds] of START) {
      if (!random.once(40)) steps.push([hexOf(message(type, payload)), fds, []]);
    }
  }
  for (let n = 1 + random.below(STEPS); n > 0; n--) steps.push(step(random));
  return { device, steps };
}

function step(random: Random): Step {
  const type = random.once(40) ? oddWord(random) : random.below(REQUESTS);
  const version = random.once(30) ? random.below(16) : 1;
  const bytes = message(type, payloadOf(type, random), version);
  if (random.once(50)) bytes[8 + random.below(4)] = random.below(256);
  const count = random.once(40) ? random.below(20) : random.below(3);
  const fds = Array.from({ length: count }, () => attached(type, random));
  const pokes = Array.from(
    { length: 8 },
    () => [random.below(0x40000) & ~3, oddWord(random)] as const,
  );
  return [hexOf(bytes), fds, pokes];
}

function attached(type: number, random: Random): FdKind {
  if (random.once(5)) return random.pick(FD_KINDS);
  return type === 5 || random.once(10) ? "memfd" : "eventfd";
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

class ProxySession implements Session<Connection> {
  readonly #fds = new StrangeFds();
  readonly #benches = FORMATS.map((device) => new ProxyBench(device));
  readonly #limit = new ResourceLimit("self", WARM_UP_CHECKS);
  readonly #idleFds = resourcesOf("self").descriptors;

  run({ device, steps }: Connection): number {
    const bench = this.#benches[device]!;
    for (const step of steps) if (!this.#step(bench, step)) break;
    bench.connect();
    const fds = settledFds("self", this.#idleFds);
    expect(fds === this.#idleFds, () => `${fds} descriptors open, ${this.#idleFds} at the start`);
    return steps.length;
  }

  /** @returns false if the connection is closed */
  #step(bench: ProxyBench, [hex, kinds, pokes]: Step): boolean {
    const bytes = Buffer.from(hex, "hex");
    const type = bytes.readUInt32LE(0);
    for (const [offset, value] of pokes) bench.view.setUint32(offset, value, true);
    const fds = kinds.map((kind) => (kind === "memfd" ? bench.memfd : this.#fds.get(kind)));
    try {
      bench.send(bytes, fds);
    } catch (error) {
      if (error instanceof Error && /EPIPE|ECONNRESET/.test(error.message)) return false;
      throw error;
    }
    if (bench.port.incoming.length === 0) bench.port.incoming.push(FRAME);
    bench.pair.drainTx();
    bench.pair.fillRx();
    this.#fds.block();
    // Signals the interrupt's descriptor, which must not block, whatever it is.
    for (const queue of [0, 1]) bench.frontend.backend.fire(queue);
    const reply = bench.reply();
    if (reply === null || reply === "closed") return false;
    bench.eventFds.push(...reply.fds);
    bench.closeEventFds();
    expect(reply.type === type, () => `request ${type} is answered as ${reply.type}`);
    const isProgram = type === 4 && reply.flags === 1;
    expect(reply.fds.length === (isProgram ? 1 : 0), () => `${reply.fds.length} descriptors`);
    return (bytes.readUInt32LE(8) | 0) === bytes.length - 12;
  }

  /** Checks that a well-behaved VMM is served. */
  check(): Promise<void> {
    for (const bench of this.#benches) {
      try {
        bench.connect();
        bench.configure();
      } catch (error) {
        throw new Find(`a good VMM is not served: ${(error as Error).message}`);
      }
      bench.connect();
      bench.closeEventFds();
      bench.warnings.length = 0;
      bench.port.sent.length = 0;
      bench.port.sentMetadata.length = 0;
    }
    return this.#limit.check();
  }

  resources(): Resources {
    return resourcesOf("self");
  }

  close(): void {
    for (const bench of this.#benches) bench.close();
    this.#fds.close();
  }
}

export const proxy: Target<Connection> = {
  name: "proxy",
  description: "bpfhv-proxy messages to the backend's end, rings scribbled on between them",
  unit: "messages",
  generate,
  open: () => new ProxySession(),
};
