/**
 * `bpfhv/testing`: a machine in this process, with one NIC under a load of numbered packets in both
 * directions, so that what a ring format loses, repeats or damages is counted.
 */
import { FEATURES } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import type { ProgramSets } from "../devices/program-set.ts";
import { GuestDriver } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import type { Batch } from "../memory/index.ts";
import { receiveFrom } from "../memory/receive.ts";
import { BasePort } from "../net/base.ts";
import { LocalNic } from "../nic/local.ts";
import { copyFromAddress, type Mapping, mapAnonymous } from "../os/memory.ts";

const NUMBER = 14;
const LEAST = 60;
const LENGTHS = 1400;
const BUFFER = 2048;
const ALL_FEATURES = Object.values(FEATURES).reduce((all, bit) => all | bit, 0);
/** Packets each way in one burst. */
const BURST = 32;
/** A replacement takes some twenty turns. */
const MOST_TURNS = 10_000;

/** One direction, as its receiver sees it. Plain data. */
export interface FlowCounts {
  sent: number;
  arrived: number;
  /** Numbers that were skipped. */
  lost: number;
  /** Numbers that came again, or after a later one. */
  repeated: number;
  /** Packets of another length, or with other bytes at their end, than were sent. */
  damaged: number;
}

const lengthOf = (number: number): number => LEAST + (number % LENGTHS);

class Flow implements FlowCounts {
  sent = 0;
  arrived = 0;
  lost = 0;
  repeated = 0;
  damaged = 0;
  #expected = 0;

  came(number: number, length: number, last: number): void {
    this.arrived++;
    if (length !== lengthOf(number) || last !== (number & 0xff)) this.damaged++;
    if (number < this.#expected || number >= this.sent) {
      this.repeated++;
      return;
    }
    this.lost += number - this.#expected;
    this.#expected = number + 1;
  }

  /** Nothing comes any more: what is still on its way is lost. */
  end(): void {
    this.lost += this.sent - this.#expected;
    this.#expected = this.sent;
  }

  get counts(): FlowCounts {
    const { sent, arrived, lost, repeated, damaged } = this;
    return { sent, arrived, lost, repeated, damaged };
  }
}

/** Takes numbered packets from the guest, and gives it its own. */
class LoadPort extends BasePort {
  readonly name = "load";
  readonly fromGuest = new Flow();
  readonly toGuest = new Flow();
  waiting = 0;
  readonly #native: Mapping = mapAnonymous(BUFFER);
  readonly #bytes = new Uint8Array(this.#native.view(0, BUFFER));
  readonly #words = new DataView(this.#bytes.buffer);
  readonly #seen = new Uint8Array(8);
  readonly #seenWords = new DataView(this.#seen.buffer);

  send(batch: Batch): number {
    for (let p = 0; p < batch.packets; p++) this.#came(batch, p);
    return batch.packets;
  }

  /** Number and last byte are enough: a ring moves packets whole. */
  #came(batch: Batch, p: number): void {
    const first = batch.first[p];
    const last = batch.first[p + 1] - 1;
    const length = batch.length[p];
    let before = 0;
    for (let s = first; s < last; s++) before += batch.size[s];
    copyFromAddress(this.#seen.subarray(0, 4), batch.address[first] + NUMBER);
    copyFromAddress(this.#seen.subarray(4, 5), batch.address[last] + length - before - 1);
    this.fromGuest.came(this.#seenWords.getUint32(0), length, this.#seen[4]);
  }

  receive(batch: Batch): void {
    while (this.waiting > 0 && batch.nextBuffer() > 0) {
      const number = this.toGuest.sent++;
      const length = lengthOf(number);
      this.#words.setUint32(NUMBER, number);
      this.#bytes[length - 1] = number & 0xff;
      if (!receiveFrom(batch, this.#native.address, length)) this.tooLong++;
      this.waiting--;
    }
    this.receiveDrained = this.waiting === 0;
  }

  override close(): void {
    this.#native.unmap();
  }
}

export interface MachineOptions {
  readonly rxBufs?: number;
  readonly txBufs?: number;
  /** Of the guest's memory. */
  readonly mib?: number;
  /** Compiled elsewhere; default: compiled here. */
  readonly programs?: ProgramSets;
}

export class Machine {
  readonly local: LocalNic;
  readonly driver: GuestDriver;
  /** Milliseconds of work, without what passed between bursts. */
  busyMs = 0;
  readonly #memory: LocalMemory;
  readonly #port = new LoadPort();
  readonly #frame = new Uint8Array(BUFFER);
  readonly #words = new DataView(this.#frame.buffer);
  readonly #take = (frame: Uint8Array): void => this.#came(frame);

  constructor(format: RingFormat, options: MachineOptions = {}) {
    const { rxBufs = 256, txBufs = 256, mib = 64, programs } = options;
    this.#memory = new LocalMemory(mib << 20);
    this.local = new LocalNic({
      ...{ device: format, memory: this.#memory, ports: [this.#port] },
      ...{ config: { rxBufs, txBufs }, ...(programs === undefined ? {} : { programs }) },
    });
    this.driver = new GuestDriver(this.local, this.#memory, {
      ...{ bufferSize: BUFFER, features: ALL_FEATURES, overlap: true },
    });
    this.driver.open();
  }

  /** What the guest sent, and the port saw. */
  get fromGuest(): FlowCounts {
    return this.#port.fromGuest.counts;
  }

  /** What the port gave, and the guest saw; packets that the guest's buffers were too short for. */
  get toGuest(): FlowCounts & { readonly tooLong: number } {
    return { ...this.#port.toGuest.counts, tooLong: this.#port.tooLong };
  }

  /** Name of the ring format that runs. */
  get running(): string {
    return this.local.nic.running.format.name;
  }

  /** Packets each way, as many as the rings take, up to `count`. */
  burst(count = BURST): void {
    const started = performance.now();
    for (let n = 0; n < count && this.#send(); n++);
    this.#port.waiting = count;
    this.#turn();
    this.busyMs += performance.now() - started;
  }

  /** Bursts until each side has sent so many packets, then waits for those on their way. */
  run(packets: number): void {
    const { fromGuest, toGuest } = this.#port;
    const [out, back] = [fromGuest.sent + packets, toGuest.sent + packets];
    for (let idle = 0; fromGuest.sent < out || toGuest.sent < back; ) {
      const before = fromGuest.sent + toGuest.sent;
      this.burst();
      idle = fromGuest.sent + toGuest.sent === before ? idle + 1 : 0;
      if (idle > 100)
        throw new Error(`no packet moves any more: ${this.local.nic.running.format.name}`);
    }
    this.settle();
  }

  /** Turns until nothing moves; packets that have not arrived by then count as lost. */
  settle(): void {
    this.#port.waiting = 0;
    for (let idle = 0; idle < 3; ) idle = this.#turn() > 0 ? 0 : idle + 1;
    this.#port.fromGuest.end();
    this.#port.toGuest.end();
  }

  /** Offers another ring format to the guest's driver, which takes it step by step: `step`. */
  replace(format: RingFormat, options: Omit<MachineOptions, "mib"> = {}): void {
    this.local.replace(format, options);
  }

  /**
   * One step of the replacement. @returns true while it goes on
   * @throws Error if the set was not taken: the one of before goes on
   */
  step(): boolean {
    const { upgrade } = this.driver;
    const { dropped } = upgrade.counters;
    upgrade.step();
    if (upgrade.counters.dropped === dropped) return upgrade.phase !== "idle";
    throw new Error(`not taken: ${this.local.nic.upgrade.report?.reason ?? ""}`);
  }

  /** A whole replacement under load. @throws Error if the set was not taken */
  upgrade(format: RingFormat, options: Omit<MachineOptions, "mib"> = {}): void {
    this.replace(format, options);
    for (let turns = 0; this.step(); turns++) {
      if (turns > MOST_TURNS) throw new Error(`${format.name}: the old rings are never drained`);
      this.burst();
    }
  }

  close(): void {
    this.local.nic.detach();
    this.#port.close();
    this.#memory.close();
  }

  #send(): boolean {
    const { sent } = this.#port.fromGuest;
    const length = lengthOf(sent);
    this.#words.setUint32(NUMBER, sent);
    this.#frame[length - 1] = sent & 0xff;
    if (!this.driver.send(0, this.#frame.subarray(0, length))) return false;
    this.#port.fromGuest.sent++;
    return true;
  }

  #turn(): number {
    const [pair] = this.local.pairs;
    const moved = pair.drainTx() + pair.fillRx();
    return moved + this.driver.clean(0) + this.driver.receive(0, this.#take);
  }

  #came(frame: Uint8Array): void {
    const number =
      ((frame[NUMBER] << 24) |
        (frame[NUMBER + 1] << 16) |
        (frame[NUMBER + 2] << 8) |
        frame[NUMBER + 3]) >>>
      0;
    this.#port.toGuest.came(number, frame.length, frame[frame.length - 1]);
  }
}
