/**
 * Reads the packets of a capture file through a buffer of fixed size: files may have any length.
 * The format is libpcap's classic one (draft-ietf-opsawg-pcap), in both byte orders.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { type Mapping, mapAnonymous } from "../os/memory.ts";

export const FILE_HEADER = 24;
export const RECORD_HEADER = 16;
/** Longest packet of a capture: libpcap's limit. */
export const SNAPLEN = 262144;
export const LINKTYPE_ETHERNET = 1;
export const MAGIC_NS = 0xa1b23c4d;
const MAGIC_US = 0xa1b2c3d4;
const BUFFER = 512 * 1024;
/** Bits of the link type: length of the frame check sequence in 16-bit words. */
const HAS_FCS = 0x0400_0000;
const FCS_SHIFT = 28;
const MIN_FRAME = 14;

/** A capture that cannot be opened or read; the message says what is wrong, and what to do. */
export class PcapError extends Error {
  readonly code = "PCAP";
  constructor(message: string) {
    super(message);
    this.name = "PcapError";
  }
}

/** Formats that are not classic captures, by their first four bytes as a big-endian number. */
function whatElse(magic: number): string {
  if (magic === 0x0a0d0d0a) return "a pcapng file: convert it with editcap -F pcap";
  if (magic >>> 16 === 0x1f8b) return "compressed: unpack it with gunzip";
  return "not a classic capture: convert it with editcap -F pcap";
}

/** @throws PcapError if the path cannot be opened, or is not a regular file */
function openCapture(path: string): number {
  const object = `pcap:replay=${path}`;
  let fd: number;
  try {
    // O_NONBLOCK: opening a FIFO must not block the NIC until it has a writer.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") {
      throw new PcapError(`${object}: no such file; record one with tcpdump -w ${path}`);
    }
    if (code === "EACCES") {
      throw new PcapError(`${object}: permission denied; make it readable for this user`);
    }
    throw new PcapError(`${object}: ${code}; give a capture file that can be read`);
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new PcapError(`${object}: not a regular file; write the capture to one first`);
}

export class CaptureReader {
  /** Address and bytes of the packet that `next` found, valid until the next call. */
  address = 0;
  length = 0;
  ended = false;
  /** Packets that `next` found. */
  found = 0;
  /** Packets that the capture holds only in part. */
  cut = 0;
  /** Packets shorter than an Ethernet header. */
  short = 0;
  /** Why the replay ended before the end of the file; "": it did not. */
  problem = "";
  readonly #path: string;
  readonly #fd: number;
  readonly #native: Mapping;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Bytes that were read and not used yet. */
  #from = 0;
  #to = 0;
  #little = false;
  /** Bytes of the frame check sequence, which the guest does not get. */
  #fcs = 0;

  /** @throws PcapError */
  constructor(path: string) {
    this.#path = path;
    this.#fd = openCapture(path);
    this.#native = mapAnonymous(BUFFER);
    this.#bytes = new Uint8Array(this.#native.view(0, BUFFER));
    this.#view = new DataView(this.#bytes.buffer);
    try {
      this.#readHeader();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Reads one record. @returns false if it is skipped, or at the end */
  next(): boolean {
    const number = this.found + this.cut + this.short + 1;
    if (!this.#fill(RECORD_HEADER)) {
      this.#end(this.#to > this.#from ? `packet ${number} is truncated` : "");
      return false;
    }
    const length = this.#word(8);
    const onTheWire = this.#word(12);
    if (length > SNAPLEN) {
      this.#end(`packet ${number} says that it has ${length} bytes`);
      return false;
    }
    if (!this.#fill(RECORD_HEADER + length)) {
      this.#end(`packet ${number} is truncated`);
      return false;
    }
    this.address = this.#native.address + this.#from + RECORD_HEADER;
    this.length = length - this.#fcs;
    this.#from += RECORD_HEADER + length;
    if (length < onTheWire) this.cut++;
    else if (this.length < MIN_FRAME) this.short++;
    else {
      this.found++;
      return true;
    }
    return false;
  }

  /** Packets that were skipped. */
  get skipped(): number {
    return this.cut + this.short;
  }

  /** One sentence about what was not replayed; "": everything was. */
  summary(): string {
    const parts = [
      ...(this.cut > 0 ? [`${this.cut} of which it holds a part only (snaplen)`] : []),
      ...(this.short > 0 ? [`${this.short} shorter than an Ethernet header`] : []),
    ];
    const skipped = parts.length > 0 ? `; not replayed: ${parts.join(", ")}` : "";
    if (skipped === "" && this.problem === "") return "";
    const end = this.problem === "" ? "" : `; the rest is not: ${this.problem}`;
    const packets = this.found === 1 ? "1 packet" : `${this.found} packets`;
    return `${this.#path}: ${packets} replayed${skipped}${end}`;
  }

  close(): void {
    closeSync(this.#fd);
    this.#native.unmap();
  }

  #readHeader(): void {
    const object = `pcap:replay=${this.#path}`;
    const whole = this.#fill(FILE_HEADER);
    if (this.problem !== "") throw new PcapError(`${object}: ${this.problem}`);
    if (this.#to < 4) throw new PcapError(`${object}: too short for a capture; record it anew`);
    const magic = this.#view.getUint32(0);
    this.#little = isMagic(this.#view.getUint32(0, true));
    if (!this.#little && !isMagic(magic)) throw new PcapError(`${object}: ${whatElse(magic)}`);
    if (!whole) throw new PcapError(`${object}: too short for a capture; record it anew`);
    const link = this.#word(20);
    if ((link & 0xffff) !== LINKTYPE_ETHERNET) {
      throw new PcapError(
        `${object}: link type ${link & 0xffff}: only Ethernet (1) can be replayed; ` +
          "record it on an Ethernet interface",
      );
    }
    this.#fcs = link & HAS_FCS ? (link >>> FCS_SHIFT) * 2 : 0;
    this.#from = FILE_HEADER;
  }

  #word(at: number): number {
    return this.#view.getUint32(this.#from + at, this.#little);
  }

  #end(problem: string): void {
    this.ended = true;
    if (this.problem === "") this.problem = problem;
  }

  /** Fills the buffer to `count` bytes. @returns false if the file has fewer */
  #fill(count: number): boolean {
    if (this.#to - this.#from >= count) return true;
    this.#bytes.copyWithin(0, this.#from, this.#to);
    this.#to -= this.#from;
    this.#from = 0;
    while (this.#to < count) {
      const got = this.#read();
      if (got === 0) return false;
      this.#to += got;
    }
    return true;
  }

  #read(): number {
    try {
      return readSync(this.#fd, this.#bytes, this.#to, BUFFER - this.#to, null);
    } catch (error) {
      this.problem = `it cannot be read: ${(error as NodeJS.ErrnoException).code}`;
      return 0;
    }
  }
}

function isMagic(word: number): boolean {
  return word === MAGIC_US || word === MAGIC_NS;
}
