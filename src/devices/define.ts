/**
 * `defineNic` makes a ring format of its two halves: guest programs in TypeScript, which are
 * compiled to eBPF, and the host's rings. docs/extending.md is the contract.
 *
 * The worker of a NIC loads this file: nothing here may import the compiler.
 */
import { FEATURES, PRIVATE_OFFSET, type ProgramSet } from "../abi/index.ts";
import type { QueueCounters } from "../memory/counters.ts";
import { type ContextWords, contextWords } from "../memory/index.ts";
import { GuestBuffers } from "./buffers.ts";
import type { ProgramOptions, QueueConfig, RingFormat, RxRing, TxRing } from "./format.ts";

/** What a host half is made of. */
export interface RingConfig {
  /** The context as 32-bit words; at least `PRIVATE_OFFSET + privateSize(bufs)` bytes. */
  readonly words: ContextWords;
  /** A power of two. */
  readonly bufs: number;
  /** Turns addresses of guest buffers into host addresses. */
  readonly buffers: GuestBuffers;
  /** Counters of the queue: for what the ring drops. */
  readonly counters: QueueCounters;
  /** Feature bits that guest and host agreed on. */
  readonly features: number;
  /** Bytes of the longest packet that is received. */
  readonly maxPacket: number;
}

export interface NicDefinition {
  /** Lower case letters, digits and underscores; appears in status and logs. */
  readonly name: string;
  /** `FEATURES` bits that it can offer. Default: none; its packets then carry no metadata. */
  readonly features?: number;
  /**
   * The TypeScript file that exports txp, txc, txi, txr, rxp, rxc, rxi and rxr: a URL, for example
   * `import.meta.url` or `new URL("./guest.ts", import.meta.url)`. Or a function that returns ready
   * sets, for example read from objects that clang made.
   */
  readonly programs: string | URL | ((options: ProgramOptions) => ProgramSet);
  /** Layouts and tables that the programs use by name; what only they import by path is found. */
  readonly layouts?: Readonly<Record<string, unknown>>;
  /** Values of the programs' `declare const`; `bufs` and `form` are given without it. */
  readonly constants?: (options: ProgramOptions) => Readonly<Record<string, unknown>>;
  /** Most buffers that a queue can have; default: 8192, the ABI's limit. */
  readonly maxBufs?: number;
  /** Bytes of the private area with so many buffers. */
  readonly privateSize: (bufs: number) => number;
  /** Writes a fresh private area, which is all zero before. */
  readonly initialise: (direction: "rx" | "tx", words: ContextWords, bufs: number) => void;
  readonly tx: (config: RingConfig) => TxRing;
  readonly rx: (config: RingConfig) => RxRing;
}

const ALL_FEATURES = Object.values(FEATURES).reduce((all, bit) => all | bit, 0);

/** @throws RangeError if the definition is invalid */
export function defineNic(definition: NicDefinition): RingFormat {
  const { name, features = 0, maxBufs, initialise, layouts = {}, constants } = definition;
  const { programs, privateSize, tx, rx } = definition;
  if (!/^[a-z][a-z0-9_]{0,30}$/.test(name)) {
    throw new RangeError(`name "${name}": use 1 to 31 of a-z, 0-9 and _, a letter first`);
  }
  if ((features & ~ALL_FEATURES) !== 0) {
    throw new RangeError(`${name}: features 0x${features.toString(16)}: use the bits of FEATURES`);
  }
  const contextSize = (bufs: number) => PRIVATE_OFFSET + privateSize(bufs);
  const ringConfig = (config: QueueConfig): RingConfig => {
    const words = contextWords(config.context);
    const needed = contextSize(config.bufs);
    if (words.byteLength < needed) {
      throw new RangeError(`context of ${words.byteLength} bytes: ${name} needs ${needed}`);
    }
    const { bufs, counters, features, maxPacket, memory } = config;
    return { words, bufs, counters, features, maxPacket, buffers: new GuestBuffers(memory) };
  };
  return {
    name,
    features,
    programs:
      typeof programs === "function"
        ? programs
        : { url: `${programs}`, given: layouts, constants: constants ?? (() => ({})) },
    sizeProblem: (bufs) =>
      maxBufs === undefined || bufs <= maxBufs
        ? null
        : `${bufs} buffers: ${name} takes at most ${maxBufs}`,
    contextSize,
    initialise: (direction, context, bufs) => {
      const words = contextWords(context);
      for (let i = PRIVATE_OFFSET >> 2; i < words.byteLength >> 2; i++) words.set(i, 0);
      initialise(direction, words, bufs);
    },
    tx: (config) => tx(ringConfig(config)),
    rx: (config) => rx(ringConfig(config)),
  };
}
