/**
 * Frames that say which they are: an experimental EtherType, a number, and bytes, a length and metadata that follow
 * from it. Whoever gets one knows whether it is whole and unchanged, and what is missing before it.
 */
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

/** Broadcast, from 52:54:00:12:34:56; 88b5 is the IEEE's "local experimental EtherType 1". */
const HEADER = Uint8Array.from(Buffer.from("ffffffffffff52540012345688b5", "hex"));
const NUMBER = HEADER.length;
const CONTENT = NUMBER + 4;
const MIN_FRAME = 60;
const MAX_FRAME = 1514;

/** Where segmentation offloads are on: the shortest frame that is to be cut. */
const MIN_LARGE = 200;

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
const METADATA_BYTES = 10;

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
  readonly #kinds: typeof KINDS;
  readonly #frame: Uint8Array;
  readonly #view: DataView;
  readonly #metadata = new Uint8Array(METADATA_BYTES);
  readonly #metadataView = new DataView(this.#metadata.buffer);

  constructor({ size = 0, offloads = 0, longest = MAX_FRAME }: NumberedFramesOptions = {}) {
    this.#size = size;
    this.#longest = longest;
    this.#kinds = KINDS.filter(([flags, gsoType]) => allowsMetadata(offloads, flags, gsoType));
    this.#frame = new Uint8Array(Math.max(longest, MAX_FRAME));
    this.#view = new DataView(this.#frame.buffer);
    this.#frame.set(HEADER);
  }

  /** The frame of a number; valid until the next call. */
  make(number: number): Uint8Array {
    const length = this.#lengthOf(number);
    this.#view.setUint32(NUMBER, number);
    this.#frame.fill(number & 0xff, CONTENT, length);
    return this.#frame.subarray(0, length);
  }

  /** The virtio_net_hdr that goes with it; valid until the next call. */
  metadata(number: number): Uint8Array {
    const [flags, gsoType] = this.#kind(number);
    const view = this.#metadataView;
    const large = gsoType === GSO_NONE ? 0 : 1;
    view.setUint8(0, flags);
    view.setUint8(1, gsoType);
    view.setUint16(2, large * 54, true);
    view.setUint16(4, large * (100 + (number % 1348)), true);
    view.setUint16(6, flags === 0 ? 0 : 34, true);
    view.setUint16(8, flags === 0 ? 0 : 6 + 10 * (number & 1), true);
    return this.#metadata;
  }

  /**
   * @param metadata as it came with the frame; null: nothing can have come
   * @returns the frame's number; -1 where it is not one of these; -2 where it is, but changed
   */
  check(frame: Uint8Array, metadata: Uint8Array | null = null): number {
    if (frame.length < MIN_FRAME || frame[12] !== HEADER[12] || frame[13] !== HEADER[13]) return -1;
    const number = new DataView(frame.buffer, frame.byteOffset).getUint32(NUMBER);
    if (frame.length !== this.#lengthOf(number)) return -2;
    for (let i = 0; i < NUMBER - 2; i++) if (frame[i] !== HEADER[i]) return -2;
    const content = number & 0xff;
    for (let i = CONTENT; i < frame.length; i++) if (frame[i] !== content) return -2;
    if (metadata === null) return number;
    const expected = this.metadata(number);
    for (let i = 0; i < METADATA_BYTES; i++) if (metadata[i] !== expected[i]) return -2;
    return number;
  }

  #kind(number: number): (typeof KINDS)[number] {
    return this.#kinds[number % this.#kinds.length];
  }

  #lengthOf(number: number): number {
    const [, gsoType] = this.#kind(number);
    if (gsoType !== GSO_NONE) return MIN_LARGE + ((number * 97) % (this.#longest - MIN_LARGE + 1));
    return this.#size === 0 ? MIN_FRAME + (number % (MAX_FRAME - MIN_FRAME + 1)) : this.#size;
  }
}
