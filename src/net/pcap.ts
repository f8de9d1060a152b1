/**
 * The pcap port: writes the packets that the guest sends into a file, and replays those of a file to it,
 * once, as fast as they are taken. The format is libpcap's classic one, with nanoseconds.
 */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import type { Batch } from "../memory/index.ts";
import { BasePort, packetBytes, receiveCopy } from "./base.ts";

const MAGIC_US = 0xa1b2c3d4;
const MAGIC_NS = 0xa1b23c4d;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;
const SNAPLEN = 262144;
const LINKTYPE_ETHERNET = 1;

/** The file is no capture that we can read; the message says what is wrong. */
export class PcapError extends Error {
  readonly code = "PCAP";
  constructor(file: string, message: string) {
    super(`${file}: ${message}`);
    this.name = "PcapError";
  }
}

export class PcapPort extends BasePort {
  readonly name: string;
  readonly #out: number;
  readonly #packets: readonly Uint8Array[];
  #next = 0;

  /** @throws PcapError; Error of node:fs where a file cannot be opened */
  constructor(options: { readonly write?: string; readonly replay?: string }) {
    super();
    const { write, replay } = options;
    this.name = `pcap:${write ?? replay ?? ""}`;
    this.#packets = replay === undefined ? [] : parseCapture(replay, readFileSync(replay));
    this.receiveDrained = this.#packets.length === 0;
    this.#out = write === undefined ? -1 : openSync(write, "w", 0o600);
    if (this.#out >= 0) writeSync(this.#out, fileHeader());
  }

  send(batch: Batch): number {
    if (this.#out < 0) return batch.packets;
    const parts: Uint8Array[] = [];
    for (let p = 0; p < batch.packets; p++) {
      const packet = packetBytes(batch, p);
      parts.push(recordHeader(packet.length), packet);
    }
    try {
      writeSync(this.#out, Buffer.concat(parts));
    } catch {
      // A full disk stops the capture, not the guest.
      this.dropped += batch.packets;
    }
    return batch.packets;
  }

  receive(batch: Batch): void {
    while (batch.canReceive && this.#next < this.#packets.length) {
      if (!receiveCopy(batch, this.#packets[this.#next++])) this.tooLong++;
    }
    this.receiveDrained = this.#next === this.#packets.length;
  }

  override close(): void {
    if (this.#out >= 0) closeSync(this.#out);
  }
}

function fileHeader(): Uint8Array {
  const view = new DataView(new ArrayBuffer(FILE_HEADER));
  view.setUint32(0, MAGIC_NS, true);
  view.setUint16(4, 2, true);
  view.setUint16(6, 4, true);
  view.setUint32(16, SNAPLEN, true);
  view.setUint32(20, LINKTYPE_ETHERNET, true);
  return new Uint8Array(view.buffer);
}

function recordHeader(length: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(RECORD_HEADER));
  const ms = performance.timeOrigin + performance.now();
  view.setUint32(0, Math.floor(ms / 1000), true);
  view.setUint32(4, Math.floor((ms % 1000) * 1e6), true);
  view.setUint32(8, length, true);
  view.setUint32(12, length, true);
  return new Uint8Array(view.buffer);
}

/** @returns the packets of a capture, whole ones only. @throws PcapError */
export function parseCapture(name: string, bytes: Uint8Array): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < FILE_HEADER) throw new PcapError(name, "too short for a capture");
  const magics = [MAGIC_US, MAGIC_NS];
  const little = magics.includes(view.getUint32(0, true));
  if (!little && !magics.includes(view.getUint32(0, false))) {
    throw new PcapError(name, "not a classic capture: convert it with editcap -F pcap");
  }
  const link = view.getUint32(20, little) & 0xffff;
  if (link !== LINKTYPE_ETHERNET) {
    throw new PcapError(name, `link type ${link}: only Ethernet (1) can be replayed`);
  }
  const packets: Uint8Array[] = [];
  for (let at = FILE_HEADER; at + RECORD_HEADER <= bytes.length; ) {
    const length = view.getUint32(at + 8, little);
    const whole = view.getUint32(at + 12, little);
    at += RECORD_HEADER;
    if (length > bytes.length - at) {
      throw new PcapError(name, `packet ${packets.length + 1} ends after the file`);
    }
    if (length === whole && length > 0) packets.push(bytes.subarray(at, at + length));
    at += length;
  }
  return packets;
}
