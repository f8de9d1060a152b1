/**
 * What devices and ports hand each other: a table of packets, each a run of memory segments.
 * Made once, filled and emptied for ever; nothing is allocated per packet.
 *
 *     packet p = segments first[p] .. first[p + 1] - 1
 *
 * Sending, `length[p]` is what to send. Receiving, the segments of `p` are free buffers and the port
 * stores into `length[p]` how many bytes came.
 */
export class Batch {
  readonly maxPackets: number;
  readonly maxSegments: number;
  /** Packets in the batch. */
  packets = 0;
  /** Segments in the batch. */
  segments = 0;
  /** First segment of each packet, and one entry more. */
  readonly first: Int32Array;
  /** Bytes of each packet. */
  readonly length: Int32Array;
  /** The device's ring position after each packet: consuming packet p moves the ring here. */
  readonly cursor: Int32Array;
  /** Host virtual address of each segment: exact as a number, below 2^47. */
  readonly address: Float64Array;
  /** Bytes of each segment. */
  readonly size: Int32Array;

  constructor(maxPackets = 128, maxSegments = maxPackets) {
    this.maxPackets = maxPackets;
    this.maxSegments = maxSegments;
    this.first = new Int32Array(maxPackets + 1);
    this.length = new Int32Array(maxPackets);
    this.cursor = new Int32Array(maxPackets);
    this.address = new Float64Array(maxSegments);
    this.size = new Int32Array(maxSegments);
  }

  clear(): void {
    this.packets = 0;
    this.segments = 0;
  }

  /** Adds a packet of one segment. The caller has checked that there is room. */
  push(address: number, size: number, cursor: number): void {
    const p = this.packets;
    const s = this.segments;
    this.address[s] = address;
    this.size[s] = size;
    this.length[p] = size;
    this.cursor[p] = cursor;
    this.segments = s + 1;
    this.first[p + 1] = s + 1;
    this.packets = p + 1;
  }
}
