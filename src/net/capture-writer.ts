/**
 * Writes packets to a capture file, which holds whole packets at any time. If a write fails for
 * lack of space, packets are counted as lost until writes succeed again.
 *
 * The file has packets as they appear on the wire: checksums that the guest left to hardware are
 * stored, and large packets are segmented.
 */
import { closeSync, constants, fstatSync, ftruncateSync, openSync } from "node:fs";
import { type Batch, GSO_NONE, NEEDS_CSUM } from "../memory/index.ts";
import { EIO, errnoName } from "../os/errors.ts";
import { copyBytes, type Mapping, mapAnonymous } from "../os/memory.ts";
import { ignoreFileSizeSignal } from "../os/process.ts";
import { pwrite } from "../os/vector-io.ts";
import {
  FILE_HEADER,
  LINKTYPE_ETHERNET,
  MAGIC_NS,
  PcapError,
  RECORD_HEADER,
  SNAPLEN,
} from "./capture-reader.ts";
import { finishChecksum, Segmenter } from "./segmentation.ts";

/** Bytes that one system call writes; every packet fits. */
const STAGE = 1 << 20;
/** Upper bound of the longest packet. */
const LARGE = 1 << 17;
/** Packets of one system call. */
const MAX_STAGED = 256;

export class CaptureWriter {
  /** Packets that are not, or not completely, in the file. */
  lost = 0;
  /** The errno of the last write; 0: it succeeded. */
  error = 0;
  readonly #fd: number;
  readonly #stage: Mapping;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #large: Mapping;
  readonly #largeBytes: Uint8Array;
  readonly #segmenter = new Segmenter();
  /** Bytes of whole packets in the file. */
  #size = 0;
  #used = 0;
  /** End of each staged packet. */
  readonly #ends = new Int32Array(MAX_STAGED);
  #staged = 0;
  #seconds = 0;
  #nanoseconds = 0;

  /** @throws PcapError if the file cannot be created, or its header cannot be written */
  constructor(path: string) {
    // Without SIGXFSZ a limit (ulimit -f) is an error of the write, and does not end the process.
    ignoreFileSizeSignal();
    this.#fd = openForCapture(path);
    this.#stage = mapAnonymous(STAGE);
    this.#bytes = new Uint8Array(this.#stage.view(0, STAGE));
    this.#view = new DataView(this.#bytes.buffer);
    this.#large = mapAnonymous(LARGE);
    this.#largeBytes = new Uint8Array(this.#large.view(0, LARGE));
    this.#stageHeader();
    const written = pwrite(this.#fd, this.#stage.address, FILE_HEADER, 0);
    this.#size = FILE_HEADER;
    if (written === FILE_HEADER) return;
    this.#size = 0;
    this.close();
    const why = written < 0 ? errnoName(-written) : "no room";
    throw new PcapError(`pcap:write=${path}: ${why}; make room, or write to another file system`);
  }

  /** Writes all packets of the batch, as far as the file takes them. */
  write(batch: Batch): void {
    const ms = performance.timeOrigin + performance.now();
    this.#seconds = Math.floor(ms / 1000);
    this.#nanoseconds = Math.floor((ms % 1000) * 1e6);
    for (let p = 0; p < batch.packets; p++) this.#add(batch, p);
    this.#flush();
  }

  close(): void {
    this.#truncate();
    closeSync(this.#fd);
    this.#stage.unmap();
    this.#large.unmap();
  }

  #add(batch: Batch, p: number): void {
    const length = batch.length[p];
    if (batch.metadata && batch.gsoType[p] !== GSO_NONE && this.#addCut(batch, p)) return;
    this.#makeRoom(RECORD_HEADER + length);
    const at = this.#used + RECORD_HEADER;
    gather(batch, p, this.#stage.address + at);
    if (batch.metadata && batch.flags[p] & NEEDS_CSUM) {
      finishChecksum(this.#bytes, at, length, batch.csumStart[p], batch.csumOffset[p]);
    }
    this.#record(length);
    this.#endPacket();
  }

  /** @returns false if the packet cannot be segmented: the caller writes it as it is */
  #addCut(batch: Batch, p: number): boolean {
    const length = batch.length[p];
    const segmenter = this.#segmenter;
    gather(batch, p, this.#large.address);
    const count = segmenter.begin(this.#largeBytes, length, batch, p);
    const needed = count * (RECORD_HEADER + segmenter.header) + length;
    if (count === 0 || needed > STAGE) return false;
    this.#makeRoom(needed);
    for (let i = 0; i < count; i++) {
      this.#record(segmenter.write(i, this.#bytes, this.#used + RECORD_HEADER));
    }
    this.#endPacket();
    return true;
  }

  #makeRoom(bytes: number): void {
    if (this.#used + bytes > STAGE || this.#staged === MAX_STAGED) this.#flush();
  }

  /** Writes the header of a record whose bytes are staged. */
  #record(length: number): void {
    const view = this.#view;
    const at = this.#used;
    view.setUint32(at, this.#seconds, true);
    view.setUint32(at + 4, this.#nanoseconds, true);
    view.setUint32(at + 8, length, true);
    view.setUint32(at + 12, length, true);
    this.#used = at + RECORD_HEADER + length;
  }

  #endPacket(): void {
    this.#ends[this.#staged++] = this.#used;
  }

  /** Writes the staged packets; removes a packet that was written only in part. */
  #flush(): void {
    const used = this.#used;
    if (used === 0) return;
    let written = 0;
    let result = 0;
    while (written < used) {
      const { address } = this.#stage;
      result = pwrite(this.#fd, address + written, used - written, this.#size + written);
      if (result <= 0) break;
      written += result;
    }
    this.error = written === used ? 0 : -result || EIO;
    let whole = this.#staged;
    while (whole > 0 && this.#ends[whole - 1] > written) whole--;
    this.#size += whole > 0 ? this.#ends[whole - 1] : 0;
    this.lost += this.#staged - whole;
    if (written < used) this.#truncate();
    this.#staged = 0;
    this.#used = 0;
  }

  /** If truncating fails, the next packets overwrite the rest. */
  #truncate(): void {
    try {
      ftruncateSync(this.#fd, this.#size);
    } catch {}
  }

  #stageHeader(): void {
    const view = this.#view;
    view.setUint32(0, MAGIC_NS, true);
    view.setUint16(4, 2, true);
    view.setUint16(6, 4, true);
    view.setUint32(16, SNAPLEN, true);
    view.setUint32(20, LINKTYPE_ETHERNET, true);
  }
}

/** Copies packet p of the batch. */
function gather(batch: Batch, p: number, to: number): void {
  let at = 0;
  for (let s = batch.first[p]; s < batch.first[p + 1]; s++) {
    const part = Math.min(batch.size[s], batch.length[p] - at);
    copyBytes(to + at, batch.address[s], part);
    at += part;
  }
}

/** @throws PcapError if the file cannot be created, or is not a regular file */
function openForCapture(path: string): number {
  const object = `pcap:write=${path}`;
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK } = constants;
  let fd: number;
  try {
    fd = openSync(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, 0o600);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") {
      throw new PcapError(`${object}: no such folder; make it first, or name another`);
    }
    throw new PcapError(`${object}: ${code}; name a file in a folder that this user may write to`);
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new PcapError(`${object}: not a regular file; name one`);
}
