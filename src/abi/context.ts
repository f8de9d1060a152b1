/**
 * The public context: what driver and programs share, the first 2096 bytes of every queue's context.
 * The rest (the private area) belongs to the programs and the host; see `src/devices/<name>/layout.ts`.
 */
import { struct, u8, u16, u32, u64 } from "./layout.ts";

/** Buffer descriptors that one program call can take or return. */
export const MAX_BUFS = 64;

/** One entry of `bufs[]`. `vaddr` is 0 where the guest hands out no kernel addresses (HELPERFREE). */
export const BUF = struct("bpfhv_buf", 32, {
  cookie: u64(0),
  paddr: u64(8),
  vaddr: u64(16),
  len: u32(24),
  reserved: u32(28),
});

/** Offset of `bufs[0]`. */
export const BUFS_OFFSET = 48;

/** Size of the public part; the private area starts here. 48 modulo 64: not cache-line aligned. */
export const PRIVATE_OFFSET = BUFS_OFFSET + MAX_BUFS * BUF.size;

export const CONTEXT = struct("bpfhv_context", PRIVATE_OFFSET, {
  guest_priv: u64(0),
  packet: u64(8),
  num_bufs: u32(16),
  iflags: u32(20),
  oflags: u32(24),
  min_completed_bufs: u32(28),
  min_intr_nsecs: u32(32),
});

/**
 * Offload metadata of a HELPERFREE set, in the reserved bytes 36..45 of the public context: the fields
 * of `virtio_net_hdr` (VIRTIO 1.1, section 5.1.6) without `num_buffers`. Offsets are from the context.
 */
export const METADATA = struct("bpfhv_metadata", BUFS_OFFSET, {
  flags: u8(36),
  gso_type: u8(37),
  hdr_len: u16(38),
  gso_size: u16(40),
  csum_start: u16(42),
  csum_offset: u16(44),
});

export const OFLAG_KICK_NEEDED = 1;
export const OFLAG_RESCHED_NEEDED = 2;

/** Sizes of a whole context that any party accepts. */
export const MIN_CONTEXT_SIZE = PRIVATE_OFFSET;
export const MAX_CONTEXT_SIZE = 16 << 20;

/** Buffers per queue: a power of two in this range. */
export const MIN_QUEUE_BUFS = 16;
export const MAX_QUEUE_BUFS = 8192;

/** Queue pairs of one NIC in our extension of the ABI. */
export const MAX_QUEUE_PAIRS = 8;

/** True where `n` is a legal number of buffers of a queue. */
export function validQueueBufs(n: number): boolean {
  return Number.isInteger(n) && n >= MIN_QUEUE_BUFS && n <= MAX_QUEUE_BUFS && (n & (n - 1)) === 0;
}
