/** Scribbling on contexts while the guest uses them. */
import { BUF, BUFS_OFFSET, CONTEXT, MAX_BUFS, PRIVATE_OFFSET } from "../../../src/abi/index.ts";
import { SRING, SRING_DESC } from "../../../src/devices/sring/layout.ts";
import type { Nic } from "../../../src/nic/nic.ts";
import { viewAt } from "../../../src/os/libc.ts";
import type { Random } from "./random.ts";

const PAGE = 4096;
const RING = PRIVATE_OFFSET + SRING.size;

/** The 32-bit word of the queue's context, where the guest has one registered. */
function wordOf(nic: Nic, queue: number, offset: number): Int32Array | null {
  const { context } = nic.state.queues[queue];
  if (context === null || nic.host === null || offset + 4 > context.size) return null;
  const page = context.pages[Math.floor(offset / PAGE)] ?? context.address;
  const host = nic.host.memory.translate(page + (offset % PAGE), 4, true);
  return host === 0 ? null : new Int32Array(viewAt(host, 4));
}

/** A place in the context and what to put there, given what is there. */
interface Scribble {
  readonly offset: number;
  readonly value: (before: number) => number;
}

function indexLie(random: Random): Scribble {
  const field = random.pick([SRING.cons, SRING.cons, SRING.cons, SRING.clear, SRING.prod]);
  const step = random.pick([1, 1, 2, 3, 17, -1, -2, 255, 256, 257, random.word()]);
  return { offset: PRIVATE_OFFSET + field.offset, value: (before) => (before + step) | 0 };
}

/** Never the address: the guest's memory is the guest's, and it is not what this test is about. */
function descriptorLie(random: Random, bufs: number): Scribble {
  const slot = RING + random.below(bufs) * SRING_DESC.size;
  switch (random.below(4)) {
    case 0:
      return { offset: slot + SRING_DESC.cookie.offset, value: () => random.below(2 * bufs) };
    case 1:
      return {
        offset: slot + SRING_DESC.cookie.offset + 4 * random.below(2),
        value: () => random.word(),
      };
    default:
      return { offset: slot + SRING_DESC.len.offset, value: () => random.word() };
  }
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

/** One lie about one queue's ring. @returns false where the guest has no context there to lie in. */
export function scribble(nic: Nic, random: Random): boolean {
  const queue = random.below(nic.state.queues.length);
  const bufs = queue < nic.config.pairs ? nic.config.rxBufs : nic.config.txBufs;
  const kind = random.below(8);
  const lie =
    kind < 4
      ? indexLie(random)
      : kind < 6
        ? descriptorLie(random, bufs)
        : kind === 6
          ? publicLie(random)
          : {
              offset: PRIVATE_OFFSET + 4 * random.below(SRING.size / 4),
              value: () => random.word(),
            };
  const word = wordOf(nic, queue, lie.offset);
  if (word === null) return false;
  Atomics.store(word, 0, lie.value(Atomics.load(word, 0)));
  return true;
}
