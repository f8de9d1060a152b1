/**
 * A client at the byte level, for tests and fuzzers of the server.
 * It builds messages without the library.
 */
import { close } from "../../src/os/fd.ts";
import { type Mapping, mapAnonymous } from "../../src/os/memory.ts";
import { SocketReceiver, sendMessage } from "../../src/os/messages.ts";
import type { DeviceHost, PciDevice } from "../../src/vfio-user/device.ts";

export interface Answer {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  readonly errno: number;
  readonly payload: Buffer;
}

export const VERSION_PAYLOAD = Buffer.concat([
  Buffer.from([0, 0, 0, 0]),
  Buffer.from(
    '{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1048576, ' +
      '"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "write_multiple": true}}\0',
  ),
]);

/** Returns little-endian words from [width in bytes, value] pairs. */
export function pack(...fields: readonly (readonly [1 | 2 | 4 | 8, number])[]): Buffer {
  const out = Buffer.alloc(fields.reduce((sum, [width]) => sum + width, 0));
  let at = 0;
  for (const [width, value] of fields) {
    if (width === 8) out.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), at);
    else out.writeUIntLE(value % 2 ** (8 * width), at, width);
    at += width;
  }
  return out;
}

export const u32s = (...values: number[]): Buffer =>
  pack(...values.map((value) => [4, value] as const));

export function message(
  command: number,
  payload: Buffer,
  header: { id?: number; flags?: number; size?: number } = {},
): Buffer {
  const { id = 7, flags = 0, size = 16 + payload.length } = header;
  return Buffer.concat([pack([2, id], [2, command], [4, size], [4, flags], [4, 0]), payload]);
}

export class RawClient {
  readonly fd: number;
  readonly #memory: Mapping = mapAnonymous(1 << 20);
  readonly #bytes = Buffer.from(this.#memory.view(0, this.#memory.length));
  readonly #receiver = new SocketReceiver();
  #received = Buffer.alloc(0);

  constructor(fd: number) {
    this.fd = fd;
  }

  /** @returns bytes sent, -1 if the socket is full */
  send(bytes: Buffer, fds?: readonly number[]): number {
    this.#bytes.set(bytes);
    return sendMessage(this.fd, this.#memory.address, bytes.length, fds);
  }

  /** Returns all complete replies; `ended` if the server closed the connection. */
  answers(): { answers: Answer[]; ended: boolean } {
    let n = 0;
    for (;;) {
      n = this.#receiver.receive(this.fd, this.#memory);
      if (n <= 0) break;
      for (const fd of this.#receiver.fds) close(fd);
      this.#received = Buffer.concat([this.#received, this.#bytes.subarray(0, n)]);
    }
    const answers: Answer[] = [];
    for (let b = this.#received; b.length >= 16 && b.length >= b.readUInt32LE(4); ) {
      const size = b.readUInt32LE(4);
      answers.push({
        id: b.readUInt16LE(0),
        command: b.readUInt16LE(2),
        flags: b.readUInt32LE(8),
        errno: b.readUInt32LE(12),
        payload: Buffer.from(b.subarray(16, size)),
      });
      b = b.subarray(size);
      this.#received = b;
    }
    return { answers, ended: n === 0 };
  }

  close(): void {
    close(this.fd);
    this.#receiver.close();
    this.#memory.unmap();
  }
}

/** Records its requests. BAR 0: 4096 bytes of memory; BAR 1: 64 KiB that read as 0. */
export class RecordingDevice implements PciDevice {
  readonly identity = { vendor: 0x1b36, device: 0x0ace, classCode: 0xff0000, revision: 3 };
  readonly bars = [{ size: 4096 }, { size: 65536 }, null];
  readonly vectors: number = 5;
  readonly memory = new DataView(new ArrayBuffer(4096));
  readonly events: string[] = [];
  host: DeviceHost | null = null;

  read(bar: number, offset: number, size: number): number {
    if (bar !== 0) return 0;
    if (size === 1) return this.memory.getUint8(offset);
    return size === 2 ? this.memory.getUint16(offset, true) : this.memory.getUint32(offset, true);
  }

  write(bar: number, offset: number, size: number, low: number, high: number): void {
    if (bar !== 0) return;
    if (size === 1) this.memory.setUint8(offset, low);
    else if (size === 2) this.memory.setUint16(offset, low, true);
    else this.memory.setUint32(offset, low, true);
    if (size === 8) this.memory.setUint32(offset + 4, high, true);
  }

  reset(): void {
    this.events.push("reset");
  }
  busMasterChanged(enabled: boolean): void {
    this.events.push(`busMaster ${enabled}`);
  }
  dmaMapped(range: { address: number }): void {
    this.events.push(`mapped ${range.address}`);
  }
  dmaUnmapping(range: { address: number }): void {
    const known = this.host!.dma.ranges.some(({ address }) => address === range.address);
    this.events.push(`unmapping ${range.address}${known ? "" : " too late"}`);
  }
  attached(host: DeviceHost): void {
    this.host = host;
    this.events.push("attached");
  }
  detached(): void {
    this.events.push("detached");
  }
}
