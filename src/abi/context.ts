/**
 * The public context, shared by driver, programs and host: the first 2096 bytes of every queue's
 * context. The private area behind it belongs to the programs and the host; see
 * `src/devices/<name>/layout.ts`.
 */
import { struct, u8, u16, u32, u64 } from "./layout.ts";

/** Buffer descriptors that one program call can take or return. */
export const MAX_BUFS = 64;

/** One entry of `bufs[]`. `vaddr` is 0 if the guest passes no kernel addresses (HELPERFREE). */
export const BUF = struct("bpfhv_buf", 32, {
  cookie: u64(0),
  paddr: u64(8),
  vaddr: u64(16),
  len: u32(24),
  reserved: u32(28),
});

/** Offset of `bufs[0]`. */
export const BUFS_OFFSET = 48;

/**
 * Size of the public part, at which the private area starts. 48 modulo 64: not cache-line aligned.
 */
export const PRIVATE_OFFSET = BUFS_OFFSET + MAX_BUFS * BUF.size;

export const CONTEXT = struct("bpfhv_context", PRIVATE_OFFSET, {
  guest_priv: u64(0),
  packet: u64(8),
  num_bufs: u32(16),
  iflags: u32(20),
  oflags: u32(24),
  min_completed_bufs: u32(28),
  min_intr_nsecs: u32(32),
  /** Received, with METADATA_HASH: the upper half of the flow's hash; `hdr_len` is the lower. */
  hash_high: u16(46),
});

/** `virtio_net_hdr` without `num_buffers`, little endian (VIRTIO 1.1, section 5.1.6). */
export const VNET_HDR = struct("virtio_net_hdr", 10, {
  flags: u8(0),
  gso_type: u8(1),
  hdr_len: u16(2),
  gso_size: u16(4),
  csum_start: u16(6),
  csum_offset: u16(8),
});

/** Offset of the virtio_net_hdr in the public context of a HELPERFREE set: bytes 36 to 45. */
const METADATA_OFFSET = 36;

/** Offload metadata of a HELPERFREE set. Offsets are from the start of the context. */
export const METADATA = struct("bpfhv_metadata", BUFS_OFFSET, {
  flags: u8(METADATA_OFFSET + VNET_HDR.flags.offset),
  gso_type: u8(METADATA_OFFSET + VNET_HDR.gso_type.offset),
  hdr_len: u16(METADATA_OFFSET + VNET_HDR.hdr_len.offset),
  gso_size: u16(METADATA_OFFSET + VNET_HDR.gso_size.offset),
  csum_start: u16(METADATA_OFFSET + VNET_HDR.csum_start.offset),
  csum_offset: u16(METADATA_OFFSET + VNET_HDR.csum_offset.offset),
});

/** In `flags` of a received packet's metadata: it has a hash, and that covers the ports, too. */
export const METADATA_HASH = 0x40;
export const METADATA_HASH_PORTS = 0x80;

export const OFLAG_KICK_NEEDED = 1;
export const OFLAG_RESCHED_NEEDED = 2;

/** Sizes of a whole context that every party accepts. */
export const MIN_CONTEXT_SIZE = PRIVATE_OFFSET;
export const MAX_CONTEXT_SIZE = 16 << 20;

/** Buffers per queue: a power of two in this range. */
export const MIN_QUEUE_BUFS = 16;
export const MAX_QUEUE_BUFS = 8192;

/** Queue pairs of one NIC in this project's extension of the ABI. */
export const MAX_QUEUE_PAIRS = 8;

/** Returns true if `n` is a valid number of buffers of a queue. */
export function validQueueBufs(n: number): boolean {
  return Number.isInteger(n) && n >= MIN_QUEUE_BUFS && n <= MAX_QUEUE_BUFS && (n & (n - 1)) === 0;
}
