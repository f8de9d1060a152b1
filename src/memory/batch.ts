/**
 * What devices and ports hand each other: a table of packets, each a run of memory segments, with what
 * virtio-net says of a packet beside its bytes. Made once, filled and emptied for ever; nothing is
 * allocated per packet.
 *
 *     packet p = segments first[p] .. first[p + 1] - 1
 *
 * Sending, the device makes packets (`push`, or `addSegment` and `endPacket`) and the port reads them.
 * Receiving, the device lays out free segments (`addSegment`) and says how a packet takes them
 * (`receiveInto`); the port makes the packets, each from where the one before ended (`endReceived`).
 */
export class Batch {
  readonly maxPackets: number;
  readonly maxSegments: number;
  /** Packets in the batch. */
  packets = 0;
  /** Segments in the batch. */
  segments = 0;
  /** Receiving: segments that packets have taken. */
  used = 0;
  /** Receiving: bytes that must be free before a packet is asked for; 0: each packet takes one segment. */
  room = 0;
  /** Receiving: no longer packet is let in. */
  maxPacket = 0;
  /** Does the device know metadata? Otherwise the arrays of it mean nothing. */
  metadata = false;
  /** First segment of each packet, and one entry more. */
  readonly first: Int32Array;
  /** Bytes of each packet. */
  readonly length: Int32Array;
  /** Sending: the device's ring position after each packet; consuming packet p moves the ring here. */
  readonly cursor: Int32Array;
  /** Host virtual address of each segment: exact as a number, below 2^47. */
  readonly address: Float64Array;
  /** Bytes of each segment. */
  readonly size: Int32Array;

  /* The fields of virtio_net_hdr, one entry a packet (VIRTIO 1.1, section 5.1.6) */
  readonly flags: Uint8Array;
  readonly gsoType: Uint8Array;
  /** Bytes of all headers up to the payload: a hint. */
  readonly hdrLen: Uint16Array;
  /** Bytes of payload in each segment. */
  readonly gsoSize: Uint16Array;
  readonly csumStart: Uint16Array;
  /** From `csumStart`. */
  readonly csumOffset: Uint16Array;

  constructor(maxPackets = 128, maxSegments = maxPackets) {
    this.maxPackets = maxPackets;
    this.maxSegments = maxSegments;
    this.first = new Int32Array(maxPackets + 1);
    this.length = new Int32Array(maxPackets);
    this.cursor = new Int32Array(maxPackets);
    this.address = new Float64Array(maxSegments);
    this.size = new Int32Array(maxSegments);
    this.flags = new Uint8Array(maxPackets);
    this.gsoType = new Uint8Array(maxPackets);
    this.hdrLen = new Uint16Array(maxPackets);
    this.gsoSize = new Uint16Array(maxPackets);
    this.csumStart = new Uint16Array(maxPackets);
    this.csumOffset = new Uint16Array(maxPackets);
  }

  clear(): void {
    this.packets = 0;
    this.segments = 0;
    this.used = 0;
    this.room = 0;
    this.maxPacket = 0;
    this.metadata = false;
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

  /** Adds a segment: of the packet that `endPacket` will end, or a free one. The caller checked for room. */
  addSegment(address: number, size: number): void {
    const s = this.segments;
    this.address[s] = address;
    this.size[s] = size;
    this.segments = s + 1;
  }

  /** Ends a packet made of the segments added since the last one. @returns its number */
  endPacket(length: number, cursor: number): number {
    const p = this.packets;
    this.length[p] = length;
    this.cursor[p] = cursor;
    this.first[p + 1] = this.segments;
    this.packets = p + 1;
    return p;
  }

  /** Forgets the segments added since the last packet. */
  abandonPacket(): void {
    this.segments = this.first[this.packets];
  }

  /** Takes the last packet away again. */
  undoPacket(): void {
    this.packets--;
    this.segments = this.first[this.packets];
  }

  /** Receiving: packets of at most `maxPacket` bytes take several segments; `room` as above. */
  receiveInto(maxPacket: number, room: number): void {
    this.maxPacket = maxPacket;
    this.room = room;
  }

  /**
   * Receiving: a packet of `length` bytes came, into the free segments from the first unused one on. Its
   * metadata is the port's to set (at the returned number) where the device knows any.
   */
  endReceived(length: number): number {
    const p = this.packets;
    let s = this.used;
    if (this.room === 0) s++;
    else for (let left = length; left > 0 && s < this.segments; s++) left -= this.size[s];
    this.length[p] = length;
    this.first[p + 1] = s;
    this.used = s;
    this.packets = p + 1;
    return p;
  }

  /** Receiving: bytes free in unused segments are enough for one packet more, and so is the table. */
  get canReceive(): boolean {
    if (this.packets >= this.maxPackets) return false;
    if (this.room === 0) return this.used < this.segments;
    let free = 0;
    for (let s = this.used; s < this.segments; s++) {
      free += this.size[s];
      if (free >= this.room) return true;
    }
    return false;
  }
}
