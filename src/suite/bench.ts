/** A guest, a NIC and its ports in one process. */
import type { ProgramForm } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import { FORMATS } from "../devices/registry.ts";
import { GuestDriver, type GuestDriverOptions } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import type { Batch, GuestMemory, PacketMetadata } from "../memory/index.ts";
import { BasePort, packetBytes, receiveCopy } from "../net/base.ts";
import type { NicConfig } from "../nic/config.ts";
import { LocalNic } from "../nic/local.ts";

/** A port that tests look into: keeps what was sent, gives what they put in, blocks when told. */
export class TestPort extends BasePort {
  readonly name = "test";
  readonly sent: Uint8Array[] = [];
  /** What came with each of `sent`. */
  readonly sentMetadata: PacketMetadata[] = [];
  readonly incoming: Uint8Array[] = [];
  /** What comes with one of `incoming`. */
  readonly incomingMetadata = new Map<Uint8Array, PacketMetadata>();
  /** Packets that it takes before it would block. */
  room = Number.POSITIVE_INFINITY;
  /** Refuses for good what this says. */
  refuses: (frame: Uint8Array) => boolean = () => false;

  send(batch: Batch): number {
    this.sendBlocked = false;
    for (let p = 0; p < batch.packets; p++) {
      if (this.room <= 0) {
        this.sendBlocked = true;
        return p;
      }
      const frame = packetBytes(batch, p);
      if (this.refuses(frame)) {
        this.dropped++;
        continue;
      }
      this.room--;
      this.sent.push(frame);
      this.sentMetadata.push(batch.metadataOf(p));
    }
    return batch.packets;
  }

  receive(batch: Batch): void {
    while (this.incoming.length > 0 && batch.nextBuffer() > 0) {
      const frame = this.incoming.shift() as Uint8Array;
      const metadata = this.incomingMetadata.get(frame) ?? null;
      if (!receiveCopy(batch, frame, this.offloads, metadata)) this.tooLong++;
    }
    this.receiveDrained = this.incoming.length === 0;
  }
}

/** A frame that says its number, of a length that depends on it. */
export function frameOf(number: number): Uint8Array {
  const frame = new Uint8Array(60 + (number % 1400));
  new DataView(frame.buffer).setUint32(14, number);
  frame.fill(number & 0xff, 18);
  return frame;
}

export function numberOf(frame: Uint8Array): number {
  return new DataView(frame.buffer, frame.byteOffset).getUint32(14);
}

export class Bench {
  readonly memory: LocalMemory;
  readonly local: LocalNic;
  readonly ports: readonly TestPort[];
  driver!: GuestDriver;
  readonly vectors: number[] = [];

  constructor(
    options: {
      device?: RingFormat;
      pairs?: number;
      form?: ProgramForm;
      config?: Partial<NicConfig>;
      mib?: number;
      guest?: Omit<GuestDriverOptions, "form">;
      /** How the host sees the memory; default: as it is. */
      machine?: (memory: LocalMemory) => GuestMemory;
    } = {},
  ) {
    this.memory = new LocalMemory((options.mib ?? 16) << 20);
    this.ports = Array.from({ length: options.pairs ?? 1 }, () => new TestPort());
    this.local = new LocalNic({
      device: options.device ?? FORMATS[0],
      memory: options.machine?.(this.memory) ?? this.memory,
      ports: this.ports,
      interrupt: (vector) => this.vectors.push(vector),
      ...(options.config === undefined ? {} : { config: options.config }),
    });
    this.driver = new GuestDriver(this.local, this.memory, {
      ...options.guest,
      form: options.form ?? "helperfree",
    });
  }

  get nic() {
    return this.local.nic;
  }

  /** Turns until nothing moves. */
  settle(): number {
    let total = 0;
    for (let moved = this.local.turn(); moved > 0; moved = this.local.turn()) total += moved;
    return total;
  }

  /** Frames that arrived on a queue, copied. */
  take(queue = 0): Uint8Array[] {
    const frames: Uint8Array[] = [];
    this.driver.receive(queue, (frame) => frames.push(frame.slice()));
    return frames;
  }

  close(): void {
    this.nic.detach();
    this.memory.close();
  }
}
