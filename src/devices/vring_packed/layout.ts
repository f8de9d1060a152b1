/**
 * vring_packed: a packed virtqueue (VIRTIO 1.1, section 2.7) inside a context, one descriptor per
 * packet, event index both ways. Byte for byte as in the original.
 *
 * Indices run 0..n-1 with a wrap bit that flips with each lap. In a lap with wrap bit w, a
 * descriptor is available if AVAIL = w and USED = !w, and used if both are w.
 */
import { struct, u8, u16, u32, u64 } from "../../abi/index.ts";

/** Offsets from the start of the private area. */
export const PACKED = struct("vring_packed_private", 320, {
  /** Guest: head of the list of free ids. */
  next_free_id: u16(0),
  /** Guest: next slot to publish. */
  next_avail_idx: u16(2),
  /** Guest: next slot to reclaim. */
  next_used_idx: u16(4),
  avail_wrap: u8(6),
  used_wrap: u8(7),
  /** Guest: AVAIL and USED as they are published in this lap. */
  avail_used_flags: u16(8),
  /** Host (guest in reclaim): its next slot, twice, as it completes in order. */
  host_indices: u32(64),
  /** Host: its wrap bit, twice, and the flags that mean "used" in this lap. */
  host_wraps: u32(68),
  /** Host: the mode that it wrote into device_event last. */
  device_event_flags: u16(72),
  /** Host, at registration: offset of the state array in the private area. */
  state_ofs: u64(128),
  /** Host, at registration: n. */
  num_desc: u32(136),
  /** Guest: which completion interrupts. Always accessed whole. */
  driver_event: u32(192),
  /** Host: which publication kicks. Always accessed whole. */
  device_event: u32(256),
});

export const PACKED_DESC = struct("vring_packed_desc", 16, {
  addr: u64(0),
  len: u32(8),
  /** id u16, then flags u16. */
  id_flags: u32(12),
});

/** What the guest keeps of an outstanding id. */
export const PACKED_STATE = struct("vring_packed_state", 16, {
  cookie: u64(0),
  busy: u16(8),
  num: u16(10),
  next: u16(12),
  last: u16(14),
});

/** Descriptor flags. */
export const DESC_WRITE = 0x0002;
export const DESC_AVAIL = 0x0080;
export const DESC_USED = 0x8000;

/** Event word: index in bits 0..14, wrap bit 15, mode from bit 16 on. */
export const EVENT_ALWAYS = 0;
export const EVENT_NEVER = 1;
export const EVENT_AT = 2;

export const DESCRIPTORS_OFFSET = PACKED.size;

const up64 = (n: number): number => Math.ceil(n / 64) * 64;

/** Offset of the state array in the private area. */
export function stateOffset(bufs: number): number {
  return DESCRIPTORS_OFFSET + up64(PACKED_DESC.size * bufs);
}

/** Bytes of the private area with `bufs` descriptors. */
export function packedPrivateSize(bufs: number): number {
  return stateOffset(bufs) + up64(PACKED_STATE.size * bufs);
}
