/** Corrupts contexts while the guest uses them. */
import { BUF, BUFS_OFFSET, CONTEXT, MAX_BUFS, PRIVATE_OFFSET } from "../../../../src/abi/index.ts";
import { SRING, SRING_DESC } from "../../../../src/devices/sring/layout.ts";
import { GSO_TX_DESC } from "../../../../src/devices/sring_gso/layout.ts";
import {
  DESCRIPTORS_OFFSET,
  PACKED,
  PACKED_DESC,
  PACKED_STATE,
  stateOffset,
} from "../../../../src/devices/vring_packed/layout.ts";
import type { Nic } from "../../../../src/nic/nic.ts";
import { viewAt } from "../../../../src/os/libc.ts";
import type { Random } from "./random.ts";

const PAGE = 4096;

/**
 * Parts of a device's context that may be corrupted. Offsets are from
 * the start of the private area, in bytes.
 */
interface Shape {
  /** Words before the descriptors. */
  readonly controlWords: number;
  /** Control words for which slightly wrong values are effective. */
  readonly indices: readonly number[];
  readonly descriptors: number;
  readonly descriptorSize: number;
  /** Words of a descriptor except its address: the guest's memory must not be overwritten. */
  readonly cookies: readonly number[];
  readonly lengths: readonly number[];
  /** Words that a guest keeps beside its descriptors. */
  readonly kept: (bufs: number) => { readonly from: number; readonly words: number };
}

const NOTHING_KEPT = () => ({ from: 0, words: 0 });
const SRING_INDICES = [SRING.cons, SRING.cons, SRING.cons, SRING.clear, SRING.prod];

const SHAPES: Readonly<Record<string, Shape>> = {
  sring: {
    controlWords: SRING.size / 4,
    indices: SRING_INDICES.map((field) => field.offset),
    descriptors: SRING.size,
    descriptorSize: SRING_DESC.size,
    cookies: [SRING_DESC.cookie.offset, SRING_DESC.cookie.offset + 4],
    lengths: [SRING_DESC.len.offset],
    kept: NOTHING_KEPT,
  },
  sring_gso: {
    controlWords: SRING.size / 4,
    indices: SRING_INDICES.map((field) => field.offset),
    descriptors: SRING.size,
    descriptorSize: GSO_TX_DESC.size,
    cookies: [GSO_TX_DESC.cookie.offset, GSO_TX_DESC.cookie.offset + 4],
    // Includes flags, offsets of checksums, sizes of segments.
    lengths: [16, 20, 24, 28],
    kept: NOTHING_KEPT,
  },
  vring_packed: {
    controlWords: PACKED.size / 4,
    indices: [0, 4, PACKED.driver_event.offset, PACKED.device_event.offset],
    descriptors: DESCRIPTORS_OFFSET,
    descriptorSize: PACKED_DESC.size,
    cookies: [PACKED_DESC.id_flags.offset],
    lengths: [PACKED_DESC.len.offset],
    kept: (bufs) => ({ from: stateOffset(bufs), words: (bufs * PACKED_STATE.size) / 4 }),
  },
};

/** Returns the 32-bit word of the queue's context, if the guest has registered one. */
function wordOf(nic: Nic, queue: number, offset: number): Int32Array | null {
  const context = nic.queues[queue].current?.context.record;
  if (context === undefined || nic.host === null || offset + 4 > context.size) return null;
  const address =
    context.kind === "contiguous"
      ? context.address + offset
      : context.pages[Math.floor(offset / PAGE)] + (offset % PAGE);
  const host = nic.host.memory.translate(address, 4, true);
  return host === 0 ? null : new Int32Array(viewAt(host, 4));
}

/** An offset in the context, and its new value as a function of the old one. */
interface Scribble {
  readonly offset: number;
  readonly value: (before: number) => number;
}

function indexLie({ indices }: Shape, random: Random): Scribble {
  const step = random.pick([1, 1, 2, 3, 17, -1, -2, 255, 256, 257, random.word()]);
  return { offset: PRIVATE_OFFSET + random.pick(indices), value: (before) => (before + step) | 0 };
}

function descriptorLie(shape: Shape, random: Random, bufs: number): Scribble {
  const slot = PRIVATE_OFFSET + shape.descriptors + random.below(bufs) * shape.descriptorSize;
  if (random.oneIn(2)) {
    return { offset: slot + random.pick(shape.lengths), value: () => random.word() };
  }
  const cookie = slot + random.pick(shape.cookies);
  return random.oneIn(2)
    ? { offset: cookie, value: () => random.below(2 * bufs) }
    : { offset: cookie, value: () => random.word() };
}

function controlLie(shape: Shape, random: Random, bufs: number): Scribble {
  const { from, words } = shape.kept(bufs);
  const at =
    words > 0 && random.oneIn(2)
      ? from + 4 * random.below(words)
      : 4 * random.below(shape.controlWords);
  return { offset: PRIVATE_OFFSET + at, value: () => random.word() };
}

function publicLie(random: Random): Scribble {
  const buffer = BUFS_OFFSET + random.below(MAX_BUFS) * BUF.size;
  const offset = random.pick([
    ...[CONTEXT.num_bufs, CONTEXT.iflags, CONTEXT.oflags, CONTEXT.min_completed_bufs].map(
      (f) => f.offset,
    ),
    ...[BUFS_OFFSET + BUF.cookie.offset, BUFS_OFFSET + BUF.len.offset],
    ...[buffer + BUF.cookie.offset, buffer + BUF.len.offset],
  ]);
  return { offset, value: () => random.word() };
}

/** Corrupts one queue's ring once. @returns false if the guest has no context there */
export function scribble(nic: Nic, random: Random): boolean {
  const queue = random.below(nic.queues.length);
  const bufs = queue < nic.config.pairs ? nic.config.rxBufs : nic.config.txBufs;
  const shape = SHAPES[nic.config.device.name];
  const kind = random.below(8);
  const lie =
    kind < 4
      ? indexLie(shape, random)
      : kind < 6
        ? descriptorLie(shape, random, bufs)
        : kind === 6
          ? publicLie(random)
          : controlLie(shape, random, bufs);
  const word = wordOf(nic, queue, lie.offset);
  if (word === null) return false;
  Atomics.store(word, 0, lie.value(Atomics.load(word, 0)));
  return true;
}
