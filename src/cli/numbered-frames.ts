/**
 * Frames that say which they are: a number, and bytes, a length and metadata that follow from it.
 * Whoever gets one knows whether it is whole and unchanged, and what is missing before it.
 *
 * Those without offloads have an experimental EtherType. Those with a checksum to fill in, or that
 * are to be cut, are what a kernel takes for such: IP packets whose lengths, checksums and metadata
 * agree (`ip-frames.ts`).
 */
import { VNET_HDR } from "../abi/index.ts";
import {
  allowsMetadata,
  GSO_ECN,
  GSO_NONE,
  GSO_TCP_V4,
  GSO_TCP_V6,
  GSO_UDP,
  GSO_UDP_L4,
  NEEDS_CSUM,
} from "../memory/index.ts";
import { HeaderWriter, headersOf, type IpHeaders, shapeOf } from "./ip-frames.ts";

/** Broadcast, from 52:54:00:12:34:56; 88b5 is the IEEE's "local experimental EtherType 1". */
const ETHERNET = Uint8Array.from(Buffer.from("ffffffffffff52540012345688b5", "hex"));
/** The payload starts with its number. */
const NUMBER_BYTES = 4;
const MIN_FRAME = 60;
const MAX_FRAME = 1514;
const MAX_HEADERS = 74;

/** `gso_size` of frames that are to be cut: multiples of 8, as IP fragments have to be. */
const MIN_GSO_SIZE = 96;
const MAX_GSO_SIZE = 1440;
/**
 * Datagrams that one packet is segmented into, at most: UDP_MAX_SEGMENTS of older kernels, now 128.
 */
const MAX_DATAGRAMS = 64;

/** `flags` and `gso_type` that frames have in turn, as far as they are allowed. */
const KINDS: readonly (readonly [flags: number, gsoType: number])[] = [
  [0, GSO_NONE],
  [NEEDS_CSUM, GSO_NONE],
  [NEEDS_CSUM, GSO_TCP_V4],
  [NEEDS_CSUM, GSO_TCP_V6],
  [NEEDS_CSUM, GSO_UDP],
  [NEEDS_CSUM, GSO_UDP_L4],
  [NEEDS_CSUM, GSO_TCP_V4 | GSO_ECN],
];

export interface NumberedFramesOptions {
  /** Bytes of every frame, 60 to 1514; 0: all lengths in turn. */
  readonly size?: number;
  /** OFFLOAD_* that frames may need; those that are to be cut have lengths of their own. */
  readonly offloads?: number;
  /** Bytes of the longest frame that is to be cut. */
  readonly longest?: number;
}

export class NumberedFrames {
  readonly #size: number;
  readonly #longest: number;
  readonly #gsoSizes: number;
  readonly #kinds: typeof KINDS;
  readonly #frame: Uint8Array;
  readonly #headers = new HeaderWriter(new Uint8Array(MAX_HEADERS + NUMBER_BYTES));
  readonly #metadata = new Uint8Array(VNET_HDR.size);
  readonly #metadataView = new DataView(this.#metadata.buffer);

  constructor({ size = 0, offloads = 0, longest = MAX_FRAME }: NumberedFramesOptions = {}) {
    this.#size = size;
    this.#longest = longest;
    const most = Math.min(MAX_GSO_SIZE, (longest >> 1) - MAX_HEADERS);
    this.#gsoSizes = ((most - MIN_GSO_SIZE) >> 3) + 1;
    this.#kinds = KINDS.filter(([flags, gsoType]) => allowsMetadata(offloads, flags, gsoType));
    this.#frame = new Uint8Array(Math.max(longest, MAX_FRAME));
  }

  /** The frame of a number; valid until the next call. */
  make(number: number): Uint8Array {
    const length = this.#lengthOf(number);
    const head = this.#head(number, length);
    this.#frame.set(head);
    this.#frame.fill(number & 0xff, head.length, length);
    return this.#frame.subarray(0, length);
  }

  /** All before the bytes that repeat. */
  #head(number: number, length: number): Uint8Array {
    const [flags, gsoType] = this.#kind(number);
    const writer = this.#headers;
    const payload = flags === 0 ? this.#plain() : writer.write(shapeOf(gsoType), ETHERNET, length);
    writer.view.setUint32(payload, number);
    return writer.bytes.subarray(0, payload + NUMBER_BYTES);
  }

  #plain(): number {
    this.#headers.bytes.set(ETHERNET);
    return ETHERNET.length;
  }

  /** The virtio_net_hdr that goes with it; valid until the next call. */
  metadata(number: number): Uint8Array {
    const [flags, gsoType] = this.#kind(number);
    const view = this.#metadataView;
    this.#metadata.fill(0);
    if (flags === 0) return this.#metadata;
    const { start, checksum, payload } = shapeOf(gsoType);
    view.setUint8(VNET_HDR.flags.offset, flags);
    view.setUint8(VNET_HDR.gso_type.offset, gsoType);
    if (gsoType !== GSO_NONE) {
      view.setUint16(VNET_HDR.hdr_len.offset, payload, true);
      view.setUint16(VNET_HDR.gso_size.offset, this.#gsoSize(number), true);
    }
    view.setUint16(VNET_HDR.csum_start.offset, start, true);
    view.setUint16(VNET_HDR.csum_offset.offset, checksum - start, true);
    return this.#metadata;
  }

  /**
   * @param metadata as it came with the frame; null: nothing can have come
   * @returns the frame's number; -1 if it is not one of these; -2 if it is, but changed
   */
  check(frame: Uint8Array, metadata: Uint8Array | null = null): number {
    const payload = payloadOf(frame);
    if (payload === -1) return -1;
    const number = new DataView(frame.buffer, frame.byteOffset).getUint32(payload);
    if (frame.length !== this.#lengthOf(number)) return -2;
    const head = this.#head(number, frame.length);
    for (let i = 0; i < head.length; i++) if (frame[i] !== head[i]) return -2;
    const content = number & 0xff;
    for (let i = head.length; i < frame.length; i++) if (frame[i] !== content) return -2;
    if (metadata === null) return number;
    const expected = this.metadata(number);
    for (let i = 0; i < VNET_HDR.size; i++) if (metadata[i] !== expected[i]) return -2;
    return number;
  }

  #kind(number: number): (typeof KINDS)[number] {
    return this.#kinds[number % this.#kinds.length];
  }

  #gsoSize(number: number): number {
    return MIN_GSO_SIZE + 8 * (number % this.#gsoSizes);
  }

  /** What is to be cut is longer than one segment. */
  #lengthOf(number: number): number {
    const [, gsoType] = this.#kind(number);
    if (gsoType !== GSO_NONE) {
      const { payload } = shapeOf(gsoType);
      const size = this.#gsoSize(number);
      const shortest = payload + size + 1;
      const segments = gsoType === GSO_UDP_L4 ? MAX_DATAGRAMS : Number.POSITIVE_INFINITY;
      const longest = Math.min(this.#longest, payload + segments * size);
      return shortest + ((number * 97) % (longest - shortest + 1));
    }
    return this.#size === 0 ? MIN_FRAME + (number % (MAX_FRAME - MIN_FRAME + 1)) : this.#size;
  }
}

/** Where a frame's number is; -1: it is none of these. */
function payloadOf(frame: Uint8Array): number {
  if (frame.length < MIN_FRAME) return -1;
  if (frame[12] === ETHERNET[12] && frame[13] === ETHERNET[13]) return ETHERNET.length;
  const headers: IpHeaders | null = headersOf(frame);
  return headers === null || frame.length < headers.payload + NUMBER_BYTES ? -1 : headers.payload;
}
