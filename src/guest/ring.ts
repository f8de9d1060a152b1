/**
 * One queue of the user-space driver: a context, the programs of its direction, and the table of
 * buffers. Like the kernel's driver, it only runs programs and has no ring format of its own.
 */
import {
  BUF,
  BUFS_OFFSET,
  CONTEXT,
  MAX_BUFS,
  METADATA,
  OFLAG_KICK_NEEDED,
  PROGRAM_IDS,
  type ProgramName,
  type ProgramSet,
  VNET_HDR,
} from "../abi/index.ts";
import { fastestRunner, type LinearMemory, type Runner } from "../ebpf/index.ts";
import { GuestError } from "./errors.ts";
import { helpersOf } from "./helpers.ts";

/** The programs' address of the context. Arbitrary, but recognisable in a message. */
const CONTEXT_BASE = 0x1_0000_0000;

/** A program, and the function that runs it on the context. */
interface Bound {
  readonly engine: Runner;
  readonly run: () => number;
}

const word = (offset: number): number => offset >> 2;
const NUM_BUFS = word(CONTEXT.num_bufs.offset);
const OFLAGS = word(CONTEXT.oflags.offset);
const MIN_COMPLETED = word(CONTEXT.min_completed_bufs.offset);
const BUFS = word(BUFS_OFFSET);
const BUF_WORDS = word(BUF.size);
const COOKIE = word(BUF.cookie.offset);
const PADDR = word(BUF.paddr.offset);
const LEN = word(BUF.len.offset);

export { GuestError };

export interface RingOptions {
  /** A view inside `memory`. */
  readonly context: Uint8Array;
  readonly memory: LinearMemory;
  readonly programs: ProgramSet;
  readonly direction: "rx" | "tx";
  readonly bufs: number;
  /** Bytes of each buffer. */
  readonly bufferSize: number;
  /** Guest address of buffer 0. The others follow. */
  readonly buffers: number;
  /** Of the programs. */
  readonly generation: number;
}

export class GuestRing {
  readonly bufs: number;
  readonly bufferSize: number;
  /** Of its programs. */
  readonly generation: number;
  /** Buffers owned by the driver. */
  free: number;
  kickNeeded = false;
  /** Called at a version 1 program's full barrier: tests run the host there. */
  onBarrier: () => unknown = () => {};
  /**
   * The virtio_net_hdr of the packet to send, or of the packet collected last.
   * HELPERFREE programs read it from the context. Version 1 programs use helpers for
   * it, and own those bytes of the context.
   */
  readonly metadata: Uint8Array;
  readonly #words: Int32Array;
  readonly #buffers: number;
  readonly #freeIds: Int32Array;
  readonly #busy: Uint8Array;
  readonly #publish: Bound;
  readonly #collect: Bound;
  readonly #arm: Bound;
  readonly #reclaim: Bound;
  /** Instructions executed so far, by all programs. */
  executed = 0;
  /** Packets reclaimed by `reclaim` of a transmit ring, in total. */
  reclaimedPackets = 0;

  constructor(options: RingOptions) {
    const { context, memory, programs, direction, bufs } = options;
    this.bufs = bufs;
    this.bufferSize = options.bufferSize;
    this.generation = options.generation;
    this.#buffers = options.buffers;
    this.#words = new Int32Array(context.buffer, context.byteOffset, context.length >> 2);
    const header = METADATA.flags.offset;
    this.metadata =
      programs.form === "v1"
        ? new Uint8Array(VNET_HDR.size)
        : context.subarray(header, header + VNET_HDR.size);
    this.#freeIds = new Int32Array(bufs);
    this.#busy = new Uint8Array(bufs);
    this.free = 0;
    this.reset();
    const load = (name: ProgramName) => {
      const code = programs.code.get(PROGRAM_IDS[name]);
      if (code === undefined) throw new GuestError(`the set has no program ${name}`);
      const regions = [{ name: "context", base: CONTEXT_BASE, bytes: context }];
      const helpers = helpersOf({
        program: name,
        context: CONTEXT_BASE,
        metadata: this.metadata,
        memory: () => engine.memory,
        // The host may be another process: barriers are real.
        fullBarrier: () => {
          this.onBarrier();
          Atomics.add(FENCE, 0, 0);
        },
      });
      const engine: Runner = fastestRunner(code, { regions, memory, helpers });
      return { engine, run: engine.bind(CONTEXT_BASE) };
    };
    this.#publish = load(direction === "rx" ? "rxp" : "txp");
    this.#collect = load(direction === "rx" ? "rxc" : "txc");
    this.#arm = load(direction === "rx" ? "rxi" : "txi");
    this.#reclaim = load(direction === "rx" ? "rxr" : "txr");
  }

  /** What runs each of the ring's programs. */
  get runners(): readonly Runner["name"][] {
    const programs = [this.#publish, this.#collect, this.#arm, this.#reclaim];
    return programs.map(({ engine }) => engine.name);
  }

  /** Returns all buffers to the driver. */
  reset(): void {
    this.#busy.fill(0);
    for (let i = 0; i < this.bufs; i++) this.#freeIds[i] = this.bufs - 1 - i;
    this.free = this.bufs;
  }

  /** Returns the guest address of a buffer. */
  addressOf(id: number): number {
    return this.#buffers + id * this.bufferSize;
  }

  /**
   * Publishes the next `count` free buffers, `length` bytes each, the last one `last` bytes. On a
   * transmit ring they are one packet, with `metadata` (10 bytes, a virtio_net_hdr).
   */
  publish(count: number, length: number, last = length, metadata: Uint8Array | null = null): void {
    if (count > this.free || count > MAX_BUFS)
      throw new GuestError(
        `${count} buffers: ${this.free} are free, and a call takes at most ${MAX_BUFS}`,
      );
    for (let i = 0; i < count; i++) {
      const id = this.#freeIds[this.free - 1 - i];
      this.#busy[id] = 1;
      const address = this.addressOf(id);
      const at = BUFS + i * BUF_WORDS;
      this.#words[at + COOKIE] = id;
      this.#words[at + COOKIE + 1] = 0;
      this.#words[at + PADDR] = address;
      this.#words[at + PADDR + 1] = address / 2 ** 32;
      this.#words[at + LEN] = i === count - 1 ? last : length;
    }
    if (metadata === null) this.metadata.fill(0);
    else this.metadata.set(metadata);
    this.#words[NUM_BUFS] = count;
    this.#words[OFLAGS] = 0;
    this.free -= count;
    if (this.#run(this.#publish) < 0)
      throw new GuestError("the program that publishes buffers failed");
    if (this.#words[OFLAGS] & OFLAG_KICK_NEEDED) this.kickNeeded = true;
  }

  /** Returns the buffer that `publish` takes after `skip` others. */
  nextId(skip = 0): number {
    return this.#freeIds[this.free - 1 - skip];
  }

  /**
   * Collects the buffers of one completed packet and passes each one's id and length to `take`.
   * @returns their number; 0 if nothing is complete
   */
  collect(take: (id: number, length: number) => void): number {
    // Only a helper sets them: those of the previous packet do not apply.
    this.metadata.fill(0);
    const result = this.#run(this.#collect);
    if (result < 0)
      throw new GuestError(`the program that collects completions failed: error ${result}`);
    return result === 1 ? this.#give(take) : 0;
  }

  /** Reclaims unused buffers, while the device is disabled. @returns their number */
  reclaim(): number {
    let count = 0;
    for (; this.#run(this.#reclaim) === 1; this.reclaimedPackets++) count += this.#give(() => {});
    return count;
  }

  /**
   * Requests an interrupt after `min` completions (0: none).
   * @returns true if they are complete already
   */
  arm(min: number): boolean {
    this.#words[MIN_COMPLETED] = min;
    return this.#run(this.#arm) !== 0;
  }

  /** Runs what is in no hurry yet: compiled before the first packet comes. */
  warm(): void {
    this.#run(this.#collect);
    this.arm(0);
  }

  get outstanding(): number {
    return this.bufs - this.free;
  }

  #run({ engine, run }: Bound): number {
    const result = run();
    this.executed += engine.executed;
    return result;
  }

  #give(take: (id: number, length: number) => void): number {
    const count = this.#words[NUM_BUFS];
    if (count < 1 || count > MAX_BUFS) throw new GuestError(`a program returned ${count} buffers`);
    for (let i = 0; i < count; i++) {
      const at = BUFS + i * BUF_WORDS;
      const id = this.#words[at + COOKIE];
      if (this.#words[at + COOKIE + 1] !== 0 || this.#busy[id] !== 1) {
        throw new GuestError(`buffer ${id} was returned, but is not outstanding`);
      }
      take(id, this.#words[at + LEN]);
      this.#busy[id] = 0;
      this.#freeIds[this.free++] = id;
    }
    return count;
  }
}

/** An atomic on this word orders earlier and later accesses, as a full barrier does. */
const FENCE = new Int32Array(1);
