/**
 * The pcap port: writes packets that the guest sends to a file, and replays those of a file to the
 * guest, once, as fast as the guest takes them.
 */
import { statSync } from "node:fs";
import { type Batch, receiveFrom } from "../memory/index.ts";
import { errnoName } from "../os/errors.ts";
import { BasePort } from "./base.ts";
import { CaptureReader, PcapError } from "./capture-reader.ts";
import { CaptureWriter } from "./capture-writer.ts";
import type { PortKind } from "./port.ts";
import { optional, PortSpecError, parseOptions } from "./words.ts";

/** Refuses one file for both: opening it for writing empties it. @throws PcapError */
function keepApart(write: string, replay: string): void {
  const [to, from] = [write, replay].map((path) => statSync(path, { throwIfNoEntry: false }));
  if (to === undefined || to.dev !== from?.dev || to.ino !== from.ino) return;
  throw new PcapError(`pcap:write=${write}: that is the file to replay; name another`);
}

export class PcapPort extends BasePort {
  readonly name: string;
  readonly #reader: CaptureReader | null;
  readonly #writer: CaptureWriter | null;
  readonly #path: string;
  /** `lost` of the writer when writing began to fail. */
  #lostBefore = 0;
  #failing = false;

  /** @throws PcapError */
  constructor(options: { readonly write?: string; readonly replay?: string }) {
    super();
    const { write, replay } = options;
    this.name = `pcap:${write ?? replay ?? ""}`;
    this.#path = write ?? "";
    if (write !== undefined && replay !== undefined) keepApart(write, replay);
    this.#reader = replay === undefined ? null : new CaptureReader(replay);
    try {
      this.#writer = write === undefined ? null : new CaptureWriter(write);
    } catch (error) {
      this.#reader?.close();
      throw error;
    }
    this.receiveDrained = this.#reader === null;
  }

  send(batch: Batch): number {
    const writer = this.#writer;
    if (writer === null) return batch.packets;
    const before = writer.lost;
    writer.write(batch);
    // A full disk stops the capture, not the guest.
    this.dropped += writer.lost - before;
    if ((writer.error !== 0) !== this.#failing) this.#tellOfRoom(writer, before);
    return batch.packets;
  }

  #tellOfRoom(writer: CaptureWriter, before: number): void {
    this.#failing = writer.error !== 0;
    if (this.#failing) {
      this.#lostBefore = before;
      const why = errnoName(writer.error);
      this.notice = `${this.#path}: ${why}: packets are lost (dropPort) until there is room`;
    } else {
      const lost = writer.lost - this.#lostBefore;
      this.notice = `${this.#path}: the capture continues; ${lost} packets are missing`;
    }
  }

  receive(batch: Batch): void {
    const reader = this.#reader;
    if (reader === null || reader.ended) return;
    const { skipped } = reader;
    // Bounded also while no packet can be replayed: the loop has other work.
    for (let left = batch.maxPackets; left > 0 && !reader.ended && batch.nextBuffer() > 0; left--) {
      if (reader.next() && !receiveFrom(batch, reader.address, reader.length)) this.tooLong++;
    }
    this.dropped += reader.skipped - skipped;
    if (!reader.ended) return;
    this.receiveDrained = true;
    const summary = reader.summary();
    if (summary !== "") this.notice = summary;
  }

  override close(): void {
    this.#reader?.close();
    this.#writer?.close();
  }
}

export interface PcapSpec {
  readonly kind: "pcap";
  readonly write?: string;
  readonly replay?: string;
}

export const pcapPort: PortKind<PcapSpec> = {
  name: "pcap",
  usage: "pcap:[write=FILE][,replay=FILE]",
  parse(words) {
    const options = parseOptions("pcap", words, ["write", "replay"]);
    if (options.size === 0) {
      throw new PortSpecError('net "pcap": say what to do, as in pcap:write=out.pcap');
    }
    return {
      kind: "pcap",
      ...optional("write", options.get("write")),
      ...optional("replay", options.get("replay")),
    };
  },
  open(spec, { multiQueue }) {
    if (multiQueue) throw new PortSpecError('net "pcap": one file for one queue pair');
    return new PcapPort(spec);
  },
};
