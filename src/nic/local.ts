/**
 * A NIC whose machine is this process: no VMM, no sockets. For tests, benches and the embedded
 * demo.
 */
import type { RingFormat } from "../devices/format.ts";
import { type ProgramSets, programSets } from "../devices/program-set.ts";
import { QueuePair } from "../engine/pair.ts";
import type { GuestMemory } from "../memory/index.ts";
import type { Port } from "../net/port.ts";
import { readBar, writeBar } from "./bars.ts";
import type { NicConfig } from "./config.ts";
import { Nic } from "./nic.ts";
import { startReplacement } from "./replace.ts";

export interface LocalNicOptions {
  readonly device: RingFormat;
  readonly memory: GuestMemory;
  /** One per queue pair. */
  readonly ports: readonly Port[];
  /** Receives MSI-X vectors. */
  readonly interrupt?: (vector: number) => void;
  readonly config?: Partial<Omit<NicConfig, "device" | "pairs">>;
  /** Compiled elsewhere; default: compiled here. */
  readonly programs?: ProgramSets;
}

export interface LocalChoice {
  readonly rxBufs?: number;
  readonly txBufs?: number;
  readonly features?: number;
  readonly limitMs?: number;
  readonly mayLose?: boolean;
  readonly programs?: ProgramSets;
}

export class LocalNic {
  readonly nic: Nic;
  readonly pairs: readonly QueuePair[];
  /** Set again once the driver exists. */
  interrupt: (vector: number) => void;

  constructor(options: LocalNicOptions) {
    const { device, memory, ports } = options;
    this.interrupt = options.interrupt ?? (() => {});
    this.pairs = ports.map(
      (port, i) =>
        new QueuePair({
          port,
          rxVector: i,
          txVector: ports.length + i,
          fire: (vector) => this.interrupt(vector),
        }),
    );
    const config: NicConfig = {
      device,
      pairs: ports.length,
      rxBufs: 256,
      txBufs: 256,
      mac: Uint8Array.of(0x52, 0x54, 0, 1, 2, 3),
      mtu: 1500,
      linkSpeed: 0,
      doorbellSize: 8,
      ...options.config,
    };
    this.nic = new Nic(config, this.pairs);
    this.nic.ship(options.programs ?? programSets(device, config));
    this.nic.attach({ memory, fire: (vector) => this.interrupt(vector) });
    this.nic.busMasterChanged(true);
  }

  /** Offers another set to the guest's driver, as `bpfhv upgrade` does. */
  replace(device: RingFormat, choice: LocalChoice = {}): void {
    const { rxBufs, txBufs } = { rxBufs: 256, txBufs: 256, ...choice };
    const { features = device.features, limitMs = 10_000, mayLose = false } = choice;
    const programs = choice.programs ?? programSets(device, { rxBufs, txBufs });
    const set = { format: device, rxBufs, txBufs, features };
    startReplacement(this.nic, { set, programs, limitMs, mayLose });
  }

  read(bar: number, offset: number): number {
    return readBar(this.nic, bar, offset, 4);
  }

  write(bar: number, offset: number, value: number): void {
    writeBar(this.nic, bar, offset, 4, value);
  }

  /** One turn of the engine's loop. @returns packets moved */
  turn(): number {
    let moved = 0;
    for (const pair of this.pairs) moved += pair.drainTx() + pair.fillRx();
    return moved;
  }
}
