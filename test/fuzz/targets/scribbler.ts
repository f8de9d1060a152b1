/**
 * The thread that overwrites a guest's rings: maps the
 * guest's memory and writes until it is stopped.
 */
import { isMainThread, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { mapFile } from "../../../src/os/memory.ts";
import { Random } from "../../support/ebpf-fuzz/random.ts";

export interface ScribblerOrder {
  /** Descriptor of the guest's memory; below: its size. */
  readonly fd: number;
  readonly bytes: number;
  /** File offsets of the pages to write. */
  readonly pages: readonly number[];
  readonly seed: number;
  /** Words between pauses. */
  readonly burst: number;
}

/** Word 0: the command to this thread; word 1: its state. */
export const COMMAND = { STOP: 0, RUN: 1, IDLE: 0, RUNNING: 1 } as const;
export const STATE_WORDS = 2;

const EDGES = [0, 1, 2, 15, 16, 17, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];
/** Rings and indices follow the part that programs and driver share. */
const PRIVATE_WORD = 2096 / 4;
const PAGE_WORDS = 1024;

/**
 * Guests' memories by descriptor, which stay open as long as this
 * thread lives: it never releases a view.
 */
const memories = new Map<number, Uint32Array>();

function memoryOf({ fd, bytes }: ScribblerOrder): Uint32Array {
  let words = memories.get(fd);
  if (words === undefined) {
    words = new Uint32Array(mapFile(fd, 0, bytes, { write: true }).view(0, bytes));
    memories.set(fd, words);
  }
  return words;
}

function scribble(order: ScribblerOrder, state: Int32Array): void {
  const words = memoryOf(order);
  const random = new Random(order.seed);
  while (Atomics.load(state, 0) === COMMAND.RUN) {
    for (let n = 0; n < order.burst; n++) {
      const page = random.pick(order.pages) / 4;
      // Mostly the indices of a ring and the first descriptors, just after the shared part.
      const near = PRIVATE_WORD + random.below(64);
      const at = page + (random.once(3) ? random.below(PAGE_WORDS) : near);
      words[at] = random.once(3) ? random.next() : nearby(words[at]!, random);
    }
    if (order.burst < 64) Atomics.wait(state, 0, COMMAND.RUN, 0.02);
  }
}

function nearby(word: number, random: Random): number {
  return random.once(2) ? random.pick(EDGES) : word + random.below(9) - 4;
}

function serve(state: Int32Array): void {
  for (;;) {
    Atomics.wait(state, 0, COMMAND.STOP);
    let order: ScribblerOrder | undefined;
    while (order === undefined) order = receiveMessageOnPort(parentPort!)?.message;
    Atomics.store(state, 1, COMMAND.RUNNING);
    Atomics.notify(state, 1);
    scribble(order, state);
    Atomics.store(state, 1, COMMAND.IDLE);
    Atomics.notify(state, 1);
  }
}

if (!isMainThread && workerData instanceof Int32Array) serve(workerData);
