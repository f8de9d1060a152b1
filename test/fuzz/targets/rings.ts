/** Rings that another thread overwrites while the engine processes them. */
import { Worker } from "node:worker_threads";
import { BAR_REGISTERS, REG } from "../../../src/abi/index.ts";
import { FORMATS } from "../../../src/devices/registry.ts";
import { readBar, writeBar } from "../../../src/nic/bars.ts";
import type { Random } from "../../support/ebpf-fuzz/random.ts";
import { Bench, frameOf } from "../../support/guest.ts";
import { expect, type Resources, type Session, type Target } from "../target.ts";
import { expectPackets } from "./good-driver.ts";
import { ResourceLimit, resourcesOf } from "./resources.ts";
import { COMMAND, type ScribblerOrder, STATE_WORDS } from "./scribbler.ts";

type Kind = {
  readonly device: number;
  readonly bufs: number;
  readonly form: "helperfree" | "v1";
};
type Ride = Kind & {
  readonly turns: number;
  readonly seed: number;
  /** Words that the other thread writes between pauses. */
  readonly burst: number;
};

const MIB = 2;
const PAGE = 4096;
/** Limit of one turn with garbage in the rings. It takes much less without other load. */
const TURN_MS = 5000;
const WARM_UP_CHECKS = 10;
const BUFFER_SIZE = 2048;
/** All feature bits. */
const ALL = 0xffffffff;

const KINDS: readonly Kind[] = FORMATS.flatMap((_, device) =>
  [16, 64].flatMap((bufs) =>
    (["helperfree", "v1"] as const).map((form) => ({ device, bufs, form })),
  ),
);
const keyOf = ({ device, bufs, form }: Kind): string => `${device} ${bufs} ${form}`;

function benchFor({ device, bufs, form }: Kind): Bench {
  const config = { rxBufs: bufs, txBufs: bufs };
  const guest = { bufferSize: BUFFER_SIZE, features: ALL };
  return new Bench({ device: FORMATS[device]!, form, config, mib: MIB, guest });
}

function generate(random: Random): Ride {
  return {
    ...random.pick(KINDS),
    turns: 50 + random.below(300),
    seed: random.next(),
    burst: random.pick([1, 8, 64, 1024]),
  };
}

/**
 * Returns the file offsets of the pages of all contexts: searches the
 * guest's memory for a mark in each page.
 */
function contextPages(bench: Bench): number[] {
  const [range] = bench.memory.ranges;
  const { buffer, byteOffset, length } = bench.memory.bytes(range!.address, range!.size);
  const all = Buffer.from(buffer, byteOffset, length);
  const found: number[] = [];
  for (let q = 0; q < 2 * bench.ports.length; q++) {
    const context = bench.driver.contextOf(q);
    for (let at = 0; at + 8 <= context.length; at += PAGE) {
      const place = Buffer.from(context.buffer, context.byteOffset + at, 8);
      const before = Buffer.from(place);
      const mark = Buffer.from(`mark${q % 10}${(at / PAGE).toString().padStart(3, "0")}`);
      mark.copy(place);
      const offset = all.indexOf(mark);
      before.copy(place);
      expect(offset >= 0 && offset % PAGE === 0, () => "the pages of a context are not found");
      found.push(offset);
    }
  }
  return found;
}

class RingSession implements Session<Ride> {
  readonly #state = new Int32Array(new SharedArrayBuffer(4 * STATE_WORDS));
  readonly #worker: Worker;
  readonly #limit = new ResourceLimit("self", WARM_UP_CHECKS);
  /** One per ring format: creating one compiles its programs. */
  readonly #benches = new Map(
    KINDS.map((kind) => {
      const bench = benchFor(kind);
      return [keyOf(kind), [bench, contextPages(bench)] as const];
    }),
  );

  constructor() {
    const url = new URL("./scribbler.js", import.meta.url);
    this.#worker = new Worker(url, { workerData: this.#state });
    this.#worker.unref();
  }

  run(input: Ride): number {
    const { turns, seed, burst } = input;
    const [bench, pages] = this.#benches.get(keyOf(input))!;
    reopen(bench);
    for (let n = 0; n < 8; n++) bench.driver.send(0, frameOf(n));
    this.#begin({ fd: bench.memory.fd, bytes: MIB << 20, pages, seed, burst });
    try {
      ride(bench, turns);
    } finally {
      this.#end();
    }
    // After a reset of its rings, the guest is served again.
    reopen(bench);
    expectPackets(bench);
    return turns;
  }

  #begin(order: ScribblerOrder): void {
    this.#worker.postMessage(order);
    this.#set(COMMAND.RUN, COMMAND.RUNNING);
  }

  #end(): void {
    this.#set(COMMAND.STOP, COMMAND.IDLE);
  }

  /** Commands the other thread and waits until it follows. */
  #set(command: number, until: number): void {
    Atomics.store(this.#state, 0, command);
    Atomics.notify(this.#state, 0);
    while (Atomics.load(this.#state, 1) !== until) Atomics.wait(this.#state, 1, 1 - until, 50);
  }

  check(): Promise<void> {
    return this.#limit.check();
  }

  resources(): Resources {
    return resourcesOf("self");
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
    for (const [bench] of this.#benches.values()) bench.close();
  }
}

function ride(bench: Bench, turns: number): void {
  const [port] = bench.ports;
  for (let turn = 0; turn < turns; turn++) {
    if (port!.incoming.length < 64) port!.incoming.push(frameOf(turn));
    const start = performance.now();
    const moved = bench.local.turn();
    const took = performance.now() - start;
    expect(took < TURN_MS, () => `a turn took ${Math.round(took)} ms and moved ${moved} packets`);
    port!.sent.length = 0;
    port!.sentMetadata.length = 0;
  }
}

function reopen(bench: Bench): void {
  const { nic, driver } = bench;
  nic.reset();
  nic.busMasterChanged(true);
  const abilities =
    driver.programs.form === "v1" ? 0 : readBar(nic, BAR_REGISTERS, REG.EXT_OFFER, 4);
  writeBar(nic, BAR_REGISTERS, REG.EXT_ACK, 4, abilities);
  writeBar(nic, BAR_REGISTERS, REG.FEATURES, 4, driver.features);
  bench.vectors.length = 0;
  bench.ports[0]!.incoming.length = 0;
  driver.open();
}

export const rings: Target<Ride> = {
  name: "rings",
  description: "rings scribbled on by another thread while the engine runs over them",
  unit: "turns",
  generate,
  open: () => new RingSession(),
};
