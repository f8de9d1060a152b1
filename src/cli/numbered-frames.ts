/**
 * Frames that say which they are: an experimental EtherType, a number, and bytes and a length that follow from it.
 * Whoever gets one knows whether it is whole and unchanged, and what is missing before it.
 */

/** Broadcast, from 52:54:00:12:34:56; 88b5 is the IEEE's "local experimental EtherType 1". */
const HEADER = Uint8Array.from(Buffer.from("ffffffffffff52540012345688b5", "hex"));
const NUMBER = HEADER.length;
const CONTENT = NUMBER + 4;
const MIN_FRAME = 60;
const MAX_FRAME = 1514;

/** A frame's length: `size`, or, for 0, one that changes from frame to frame. */
function lengthOf(number: number, size: number): number {
  return size === 0 ? MIN_FRAME + (number % (MAX_FRAME - MIN_FRAME + 1)) : size;
}

export class NumberedFrames {
  readonly size: number;
  readonly #frame = new Uint8Array(MAX_FRAME);
  readonly #view = new DataView(this.#frame.buffer);

  /** @param size bytes of every frame, 60 to 1514; 0: all lengths in turn */
  constructor(size = 0) {
    this.size = size;
    this.#frame.set(HEADER);
  }

  /** The frame of a number; valid until the next call. */
  make(number: number): Uint8Array {
    const length = lengthOf(number, this.size);
    this.#view.setUint32(NUMBER, number);
    this.#frame.fill(number & 0xff, CONTENT, length);
    return this.#frame.subarray(0, length);
  }

  /** @returns the frame's number; -1 where it is not one of these; -2 where it is, but changed */
  check(frame: Uint8Array): number {
    if (frame.length < MIN_FRAME || frame[12] !== HEADER[12] || frame[13] !== HEADER[13]) return -1;
    const number =
      ((frame[NUMBER] << 24) |
        (frame[NUMBER + 1] << 16) |
        (frame[NUMBER + 2] << 8) |
        frame[NUMBER + 3]) >>>
      0;
    if (frame.length !== lengthOf(number, this.size)) return -2;
    for (let i = 0; i < NUMBER - 2; i++) if (frame[i] !== HEADER[i]) return -2;
    const content = number & 0xff;
    for (let i = CONTENT; i < frame.length; i++) if (frame[i] !== content) return -2;
    return number;
  }
}
