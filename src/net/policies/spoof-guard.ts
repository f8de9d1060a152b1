/**
 * Drops spoofed frames: what a guest sends must have its own source address, and be tagged for
 * VLANs that it may use. Received frames are not checked.
 *
 * The guest can write to a frame while it is checked. So the header is copied, the copy is checked,
 * and the copy is sent. The host stores a checksum that the guest leaves to it after the check: if
 * the guest could have it stored into the header, the kernel would change addresses and tags that
 * passed the check.
 */
import { DROP_SPOOFED, type QueueCounters } from "../../memory/counters.ts";
import { Batch, NEEDS_CSUM } from "../../memory/index.ts";
import { copyBytes, type Mapping, mapAnonymous } from "../../os/memory.ts";
import { ForwardingPort } from "../forwarding.ts";
import type { Port } from "../port.ts";
import { macBytes, PortSpecError } from "../words.ts";
import { headerLength, LONGEST_HEADER, MAX_TAGS } from "./frame-tags.ts";
import type { PolicyKind } from "./policy.ts";

export interface SpoofRules {
  readonly kind: "anti-spoof";
  /** The only source address that frames may have. */
  readonly mac: Uint8Array;
  /** VLANs that frames may be tagged for (0: none, or priority only); null: any. */
  readonly vlans: readonly number[] | null;
  /** Tags that a frame may have, up to MAX_TAGS; each is held against `vlans`. Default: 1. */
  readonly tags?: number;
}

/** Packets that it holds at once: a batch of the engine. */
const MAX_PACKETS = 64;
/** Bytes of each copy: the port may read the whole batch at once, so copies do not overlap. */
const STRIDE = 32;
/** Offset of the source address. */
const SOURCE = 6;
const VLANS = 4096;
const MAX_SEGMENTS = 2048;

export class SpoofGuard extends ForwardingPort {
  #sendBlocked = false;
  readonly #counters: QueueCounters;
  readonly #mac: Uint8Array;
  readonly #vlans: Uint8Array | null;
  readonly #tags: number;
  readonly #native: Mapping = mapAnonymous(MAX_PACKETS * STRIDE);
  readonly #headers = new Uint8Array(this.#native.view(0, MAX_PACKETS * STRIDE));
  /** Honest packets, each with its copied header in front. */
  readonly #out = new Batch(MAX_PACKETS, MAX_SEGMENTS);
  /** Index of each packet of `#out` in the batch that `send` got. */
  readonly #origin = new Int32Array(MAX_PACKETS);

  /** @param counters of the transmit queue: refused frames are counted there */
  constructor(port: Port, rules: SpoofRules, counters: QueueCounters) {
    super(port);
    this.#counters = counters;
    this.#mac = rules.mac.slice();
    this.#tags = Math.min(rules.tags ?? 1, MAX_TAGS);
    this.#vlans = rules.vlans === null ? null : new Uint8Array(VLANS);
    for (const vlan of rules.vlans ?? []) this.#vlans![vlan] = 1;
  }

  get sendBlocked(): boolean {
    return this.#sendBlocked;
  }

  override get sourceAddress(): Uint8Array {
    return this.#mac;
  }

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

  override release(): void {
    this.#native.unmap();
  }

  /** Packets that do not fit are offered again with the next batch. */
  #fits(batch: Batch, p: number): boolean {
    if (this.#out.packets === MAX_PACKETS) return false;
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
    for (; s < last && copied < LONGEST_HEADER; s++) {
      const part = Math.min(batch.size[s], LONGEST_HEADER - copied);
      copyBytes(copy + copied, batch.address[s], part);
      copied += part;
      rest = batch.size[s] - part;
    }
    if (!this.#honest(out.packets * STRIDE, copied, checksumStart(batch, p))) return;
    out.addSegment(copy, copied);
    if (rest > 0) out.addSegment(batch.address[s - 1] + batch.size[s - 1] - rest, rest);
    for (; s < last; s++) out.addSegment(batch.address[s], batch.size[s]);
    this.#origin[out.packets] = p;
    const q = out.endPacket(batch.length[p], 0);
    if (batch.metadata) out.copyMetadata(q, batch, p);
  }

  /**
   * @param at of the copied header
   * @param length bytes of it
   * @param csumStart first byte of the frame that the host may write to
   */
  #honest(at: number, length: number, csumStart: number): boolean {
    const headers = this.#headers;
    const mac = this.#mac;
    if (length < SOURCE + mac.length) return false;
    for (let i = 0; i < mac.length; i++) {
      if (headers[at + SOURCE + i] !== mac[i]) return false;
    }
    const vlans = this.#vlans;
    // Without a list the tags do not matter, unless something could be written into them.
    if (vlans === null && csumStart === NEVER) return true;
    const most = vlans === null ? MAX_TAGS : this.#tags;
    const header = headerLength(headers, at, length, most, vlans);
    return header >= 0 && csumStart >= header;
  }
}

/** A byte that no frame has. */
const NEVER = 0x10000;

function checksumStart(batch: Batch, p: number): number {
  if (!batch.metadata || !(batch.flags[p] & NEEDS_CSUM)) return NEVER;
  return batch.csumStart[p];
}

/** Help text of an option that takes the rules alone. */
export const ANTI_SPOOF_HELP =
  "drop spoofed frames of the guest: mac or mac=ADDRESS is the only source allowed; " +
  "vlan=LIST such as vlan=0+10+20 (0: untagged) allows these VLANs and one tag, tags=2 two of them";

const LAST_VLAN = VLANS - 2;
const KEYS = ["mac", "vlan", "tags"];

export const antiSpoof: PolicyKind<SpoofRules> = {
  name: "anti-spoof",
  usage: "anti-spoof:mac[=ADDRESS][,vlan=LIST][,tags=N]",
  parse(rules, { mac }) {
    const words = new Map<string, string>();
    for (const word of rules.split(",")) {
      const [key, value = ""] = word.split(/=(.*)/s);
      if (!KEYS.includes(key) || words.has(key)) {
        throw refused(`${rules}: write mac or mac=ADDRESS, then vlan=LIST, tags=N`);
      }
      words.set(key, value);
    }
    const vlans = words.get("vlan");
    return {
      kind: "anti-spoof",
      mac: macOf(words.get("mac"), mac),
      vlans: vlans === undefined ? null : vlans.split("+").map(vlanOf),
      ...tagsOf(words.get("tags"), vlans !== undefined),
    };
  },
  open: (rules, port, { tx }) => new SpoofGuard(port, rules, tx),
};

function refused(why: string): PortSpecError {
  return new PortSpecError(`anti-spoof: ${why}`);
}

function tagsOf(word: string | undefined, vlans: boolean): { tags?: number } {
  if (word === undefined) return {};
  if (!vlans) throw refused("tags: say for which VLANs, as in mac,vlan=10,tags=2");
  const tags = Number(word);
  if (/^\d+$/.test(word) && tags >= 1 && tags <= MAX_TAGS) return { tags };
  throw refused(`tags=${word}: use 1 to ${MAX_TAGS}, as in mac,vlan=10,tags=2`);
}

/** @param own the NIC's address, which `mac` alone stands for */
function macOf(word: string | undefined, own: Uint8Array | null): Uint8Array {
  if (word === undefined) throw refused("it begins with mac, as in mac,vlan=10");
  if (word === "") {
    if (own !== null) return own;
    throw refused("mac: the VMM does not tell the NIC's address: use mac=ADDRESS");
  }
  const mac = macBytes(word);
  if (mac !== null) return mac;
  throw refused(`MAC "${word}": write six bytes as 52:54:00:12:34:56`);
}

function vlanOf(word: string): number {
  const vlan = Number(word);
  if (/^\d+$/.test(word) && vlan <= LAST_VLAN) return vlan;
  throw refused(`VLAN "${word}": use numbers from 0 to ${LAST_VLAN}, as in 0+10`);
}
