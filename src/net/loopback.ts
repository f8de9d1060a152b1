/**
 * A port that returns what the guest sends, in order and with its metadata. As on a TAP, a packet
 * that needs an offload that the guest did not negotiate is dropped.
 */
import { allowsMetadata, type Batch, type PacketMetadata } from "../memory/index.ts";
import { BasePort, packetBytes, receiveCopy } from "./base.ts";
import type { PortKind } from "./port.ts";
import { refuseOptions } from "./words.ts";

/** Packets in flight at most. */
const CAPACITY = 512;

interface Packet {
  readonly frame: Uint8Array;
  /** null: packets of the device carry none. */
  readonly metadata: PacketMetadata | null;
}

export class LoopbackPort extends BasePort {
  readonly name = "loopback";
  readonly #packets: Packet[] = [];
  readonly #dropWhenFull: boolean;

  /** @param whenFull `wait`: it blocks, and the caller decides when to send again */
  constructor(whenFull: "wait" | "drop") {
    super();
    this.#dropWhenFull = whenFull === "drop";
  }

  send(batch: Batch): number {
    this.sendBlocked = false;
    for (let p = 0; p < batch.packets; p++) {
      if (this.#packets.length < CAPACITY) this.#packets.push(packetOf(batch, p));
      else if (this.#dropWhenFull) this.dropped++;
      else {
        this.sendBlocked = true;
        return p;
      }
    }
    return batch.packets;
  }

  override discard(): void {
    this.dropped += this.#packets.splice(0).length;
    this.receiveDrained = true;
  }

  receive(batch: Batch): void {
    while (this.#packets.length > 0 && batch.nextBuffer() > 0) {
      this.#give(batch, this.#packets.shift() as Packet);
    }
    this.receiveDrained = this.#packets.length === 0;
  }

  #give(batch: Batch, { frame, metadata }: Packet): void {
    if (metadata !== null && !allowsMetadata(this.offloads, metadata.flags, metadata.gsoType)) {
      this.dropped++;
    } else if (!receiveCopy(batch, frame, this.offloads, metadata)) this.tooLong++;
  }
}

function packetOf(batch: Batch, p: number): Packet {
  return {
    frame: packetBytes(batch, p),
    metadata: batch.metadata ? batch.metadataOf(p) : null,
  };
}

export const loopbackPort: PortKind<{ readonly kind: "loopback" }> = {
  name: "loopback",
  usage: "loopback",
  parse(words) {
    refuseOptions("loopback", words);
    return { kind: "loopback" };
  },
  open: () => new LoopbackPort("drop"),
};
