/** What tests of rings, engine and NIC stand on: a guest, a NIC and ports in one process. */
import {
  CLANG_DEVICES,
  CLANG_SIZES,
  ORIGINAL_SHAPE_DEVICES,
  ORIGINAL_SHAPE_SIZES,
} from "../../bench/clang/devices.ts";
import type { ProgramForm } from "../../src/abi/index.ts";
import type { Device } from "../../src/devices/format.ts";
import { DEVICES } from "../../src/devices/index.ts";
import { sring } from "../../src/devices/sring/host.ts";
import { GuestDriver, type GuestDriverOptions } from "../../src/guest/driver.ts";
import { LocalMemory } from "../../src/guest/memory.ts";
import type { Batch, GuestMemory, PacketMetadata } from "../../src/memory/index.ts";
import { BasePort, packetBytes, receiveCopy } from "../../src/net/base.ts";
import type { NicConfig } from "../../src/nic/config.ts";
import { LocalNic } from "../../src/nic/local.ts";

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
      device?: Device;
      pairs?: number;
      form?: ProgramForm;
      config?: Partial<NicConfig>;
      mib?: number;
      guest?: Omit<GuestDriverOptions, "form">;
      /** How the device sees the memory; default: as it is. */
      machine?: (memory: LocalMemory) => GuestMemory;
    } = {},
  ) {
    this.memory = new LocalMemory((options.mib ?? 16) << 20);
    this.ports = Array.from({ length: options.pairs ?? 1 }, () => new TestPort());
    this.local = new LocalNic({
      device: options.device ?? sring,
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

export const FULL = process.env.BPFHV_FULL === "1";
export const SIZES = FULL ? [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192] : [16, 256, 8192];

/** A device, a form of its programs, and ring sizes to test. */
export interface Variant {
  readonly name: string;
  readonly device: Device;
  readonly form: ProgramForm;
  readonly sizes: readonly number[];
}

/**
 * Every device with both forms of its programs, and the same rings with programs that clang made of
 * the same algorithm in C, so that the suites do not depend on our compiler alone. The last of them
 * call the driver's helpers as the original's programs do.
 */
export const VARIANTS: readonly Variant[] = [
  ...DEVICES.flatMap((device) =>
    (["helperfree", "v1"] as const).map((form) => ({
      ...{ name: `${device.name}, ${form}`, device, form, sizes: SIZES },
    })),
  ),
  ...CLANG_DEVICES.map((device) => ({
    name: `${device.name}, by clang`,
    ...{ device, form: "helperfree" as const, sizes: FULL ? CLANG_SIZES : [16, 64] },
  })),
  ...ORIGINAL_SHAPE_DEVICES.map((device) => ({
    name: `${device.name}, by clang`,
    ...{ device, form: "v1" as const, sizes: ORIGINAL_SHAPE_SIZES },
  })),
];
