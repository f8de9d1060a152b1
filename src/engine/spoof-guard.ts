/**
 * A port's guard against frames in another's name: what a guest sends must come from its own address, and belong to
 * a VLAN that it may use. What arrives for the guest is not looked at.
 *
 * The guest can write to a frame while we look at it. So the header is copied, judged, and the copy is sent.
 */
import { DROP_SPOOFED, type QueueCounters } from "../devices/counters.ts";
import { Batch } from "../memory/index.ts";
import { ForwardingPort } from "../net/forwarding.ts";
import type { Port } from "../net/port.ts";
import { copyBytes, type Mapping, mapAnonymous } from "../os/memory.ts";
import { BUDGET } from "./pair.ts";

export interface SpoofRules {
  /** The only source address that frames may have. */
  readonly mac: Uint8Array;
  /** VLANs that frames may be tagged for (0: none, or priority only); null: any. */
  readonly vlans: readonly number[] | null;
}

/** Two addresses, a tag, and the type behind it. */
const HEADER = 18;
/** Each copy has a place of its own, as the port may look at all of them at once. */
const STRIDE = 32;
const WORDS = STRIDE >> 1;
/** Places in a header, in 16-bit words. */
const SOURCE = 3;
const TYPE = 6;
const TAG = 7;
/** Types of a tag, as words of a little-endian machine: 802.1Q and 802.1ad. */
const TAGGED = 0x0081;
const TAGGED_SERVICE = 0xa888;
const VLANS = 4096;
const MAX_SEGMENTS = 2048;

export class SpoofGuard extends ForwardingPort {
  #sendBlocked = false;
  readonly #counters: QueueCounters;
  readonly #mac: Uint16Array;
  readonly #vlans: Uint8Array | null;
  readonly #native: Mapping = mapAnonymous(BUDGET * STRIDE);
  readonly #headers = new Uint16Array(this.#native.view(0, BUDGET * STRIDE));
  /** Honest packets, each with its copied header in front. */
  readonly #out = new Batch(BUDGET, MAX_SEGMENTS);
  /** Where each of them stands in the batch that it came in. */
  readonly #origin = new Int32Array(BUDGET);

  /** @param counters of the transmit queue: refused frames are counted there */
  constructor(port: Port, rules: SpoofRules, counters: QueueCounters) {
    super(port);
    this.#counters = counters;
    this.#mac = new Uint16Array(rules.mac.slice().buffer);
    this.#vlans = rules.vlans === null ? null : new Uint8Array(VLANS);
    for (const vlan of rules.vlans ?? []) this.#vlans![vlan] = 1;
  }

  get sendBlocked(): boolean {
    return this.#sendBlocked;
  }

  /** Packets of batches of the engine's size. */
  send(batch: Batch): number {
    const out = this.#out;
    out.clear();
    out.metadata = batch.metadata;
    let p = 0;
    for (; p < batch.packets && this.#fits(batch, p); p++) this.#take(batch, p);
    const sent = out.packets === 0 ? 0 : this.port.send(out);
    this.#sendBlocked = out.packets > 0 && this.port.sendBlocked;
    const consumed = sent === out.packets ? p : this.#origin[sent];
    this.#counters[DROP_SPOOFED] += consumed - sent;
    return consumed;
  }

  override close(): void {
    super.close();
    this.#native.unmap();
  }

  /** What does not fit comes with the next batch. */
  #fits(batch: Batch, p: number): boolean {
    const segments = batch.first[p + 1] - batch.first[p];
    return this.#out.segments + segments + 1 <= this.#out.maxSegments;
  }

  #take(batch: Batch, p: number): void {
    const out = this.#out;
    const last = batch.first[p + 1];
    const copy = this.#native.address + out.packets * STRIDE;
    let copied = 0;
    let s = batch.first[p];
    let rest = 0;
    for (; s < last && copied < HEADER; s++) {
      const part = Math.min(batch.size[s], HEADER - copied);
      copyBytes(copy + copied, batch.address[s], part);
      copied += part;
      rest = batch.size[s] - part;
    }
    if (!this.#honest(out.packets * WORDS, copied)) return;
    out.addSegment(copy, copied);
    if (rest > 0) out.addSegment(batch.address[s - 1] + batch.size[s - 1] - rest, rest);
    for (; s < last; s++) out.addSegment(batch.address[s], batch.size[s]);
    this.#origin[out.packets] = p;
    copyMetadata(batch, p, out, out.endPacket(batch.length[p], 0));
  }

  /** @param at word of the copied header @param length its bytes */
  #honest(at: number, length: number): boolean {
    const headers = this.#headers;
    const mac = this.#mac;
    for (let word = 0; word < 3; word++) {
      if (headers[at + SOURCE + word] !== mac[word]) return false;
    }
    if (this.#vlans === null) return true;
    const type = headers[at + TYPE];
    if (type !== TAGGED && type !== TAGGED_SERVICE) return this.#vlans[0] === 1;
    if (length < HEADER) return false;
    const tag = headers[at + TAG];
    return this.#vlans[((tag & 0x0f) << 8) | (tag >>> 8)] === 1;
  }
}

function copyMetadata(from: Batch, p: number, to: Batch, q: number): void {
  if (!from.metadata) return;
  to.flags[q] = from.flags[p];
  to.gsoType[q] = from.gsoType[p];
  to.hdrLen[q] = from.hdrLen[p];
  to.gsoSize[q] = from.gsoSize[p];
  to.csumStart[q] = from.csumStart[p];
  to.csumOffset[q] = from.csumOffset[p];
}
