/** Ports for tests and benches: `sink` discards, `source` generates, `null` has no link. */
import { type Batch, ETHERNET_HEADER, receiveFrom } from "../memory/index.ts";
import { type Mapping, mapAnonymous } from "../os/memory.ts";
import { BasePort } from "./base.ts";
import type { PortKind } from "./port.ts";
import { optional, PortSpecError, parseOptions, refuseOptions, wholeOption } from "./words.ts";

/** Discards sent packets; receives none. */
export class SinkPort extends BasePort {
  readonly name: string = "sink";
  sent = 0;

  send(batch: Batch): number {
    this.sent += batch.packets;
    return batch.packets;
  }

  receive(_batch: Batch): void {}
}

/** A port whose link is down: packets that are sent to it are dropped. */
export class NullPort extends BasePort {
  readonly name = "null";
  override linkUp = false;

  send(batch: Batch): number {
    this.dropped += batch.packets;
    return batch.packets;
  }

  receive(_batch: Batch): void {}
}

/** 60 bytes: broadcast, IPv4 10.0.0.1 to 10.1.0.1, UDP port 1234 to 1234. */
export const SOURCE_FRAME: Uint8Array = Uint8Array.from(
  Buffer.from(
    "ffffffffffff00000000000008004510002e000040004011269e0a0000010a010001" +
      "04d204d2001a00006e65746d617020706b742d67656e20444952",
    "hex",
  ),
);

export interface SourceOptions {
  /** Default: SOURCE_FRAME. */
  readonly frame?: Uint8Array;
  /** Bytes: the frame is truncated, or padded with zeros. */
  readonly size?: number;
  /** Total of packets; default: unlimited. */
  readonly count?: number;
  /** Maximum rate in packets per second; default: as fast as they are taken. */
  readonly rate?: number;
  /** Offset of the packet's number (u32, big endian); default: packets have none. */
  readonly numberAt?: number;
}

/** Largest burst of a paced source that is behind its rate. */
const MAX_BURST = 256;

/** Generates packets; discards sent ones. */
export class SourcePort extends SinkPort {
  override readonly name: string = "source";
  override receiveDrained = false;
  given = 0;
  readonly #native: Mapping;
  readonly #view: DataView;
  readonly #size: number;
  readonly #count: number;
  readonly #rate: number;
  readonly #numberAt: number;
  #since = performance.now();
  #owed = 0;

  constructor(options: SourceOptions = {}) {
    super();
    const frame = options.frame ?? SOURCE_FRAME;
    this.#size = options.size ?? frame.length;
    this.#count = options.count ?? Number.POSITIVE_INFINITY;
    this.#rate = options.rate ?? 0;
    this.#numberAt = options.numberAt ?? -1;
    this.#native = mapAnonymous(this.#size);
    this.#view = new DataView(this.#native.view(0, this.#size));
    new Uint8Array(this.#view.buffer).set(frame.subarray(0, this.#size));
  }

  override receive(batch: Batch): void {
    // Bounded also if every packet is too long for the guest: the loop has other work.
    const most = Math.min(this.#count - this.given, batch.maxPackets);
    let left = Math.min(this.#allowance(), most);
    for (; left > 0 && batch.nextBuffer() > 0; left--) this.#give(batch);
    // A source that waits for its rate is not drained.
    this.receiveDrained = this.given >= this.#count;
  }

  override close(): void {
    this.#native.unmap();
  }

  #give(batch: Batch): void {
    if (this.#numberAt >= 0) this.#view.setUint32(this.#numberAt, this.given);
    this.given++;
    this.#owed--;
    if (!receiveFrom(batch, this.#native.address, this.#size)) this.tooLong++;
  }

  /** Packets that the rate allows now: those of the elapsed time, up to MAX_BURST. */
  #allowance(): number {
    if (this.#rate === 0) return Number.POSITIVE_INFINITY;
    const now = performance.now();
    this.#owed = Math.min(this.#owed + ((now - this.#since) * this.#rate) / 1000, MAX_BURST);
    this.#since = now;
    return Math.floor(this.#owed);
  }
}

export const sinkPort: PortKind<{ readonly kind: "sink" }> = {
  name: "sink",
  usage: "sink",
  parse(words) {
    refuseOptions("sink", words);
    return { kind: "sink" };
  },
  continues: "by itself",
  open: () => new SinkPort(),
};

export const nullPort: PortKind<{ readonly kind: "null" }> = {
  name: "null",
  usage: "null",
  parse(words) {
    refuseOptions("null", words);
    return { kind: "null" };
  },
  continues: "by itself",
  open: () => new NullPort(),
};

export interface SourceSpec extends SourceOptions {
  readonly kind: "source";
}

const MAX_FRAME = 65535;

export const sourcePort: PortKind<SourceSpec> = {
  name: "source",
  usage: "source[:size=BYTES,count=N,rate=PPS,content=HEX,number=OFFSET]",
  parse(words) {
    const options = parseOptions("source", words, ["size", "count", "rate", "content", "number"]);
    const frame = contentOption(options.get("content"));
    const size = wholeOption(options, "size", ETHERNET_HEADER, MAX_FRAME);
    const last = (size ?? frame?.length ?? SOURCE_FRAME.length) - 4;
    return {
      kind: "source",
      ...optional("frame", frame),
      ...optional("size", size),
      ...optional("count", wholeOption(options, "count", 0, Number.MAX_SAFE_INTEGER)),
      ...optional("rate", wholeOption(options, "rate", 1, 1e9)),
      ...optional("numberAt", wholeOption(options, "number", 0, last)),
    };
  },
  open: (spec) => new SourcePort(spec),
};

function contentOption(text: string | undefined): Uint8Array | undefined {
  if (text === undefined) return undefined;
  if (/^([0-9a-f]{2})+$/i.test(text) && text.length / 2 >= ETHERNET_HEADER) {
    return Uint8Array.from(Buffer.from(text, "hex"));
  }
  const least = `at least ${ETHERNET_HEADER} bytes`;
  throw new PortSpecError(`source: content: write ${least} in hexadecimal`);
}
