/**
 * sring, host half: TX and RX rings over a mapped context.
 *
 * The guest's words are hostile. `prod` is loaded once per batch and checked: more than n entries
 * ahead is invalid and stops the queue. The host's own index lives here, not in the context; `qmask`
 * and `cons` in the context are written for the guest and, while the queue runs, never read back. A
 * descriptor's fields are each loaded once, then validated together.
 */
import { DROP_BAD_ADDRESS, DROP_BAD_LENGTH } from "../../memory/counters.ts";
import type { Batch } from "../../memory/index.ts";
import { MAX_PACKET, MIN_PACKET } from "../buffers.ts";
import { defineNic, type RingConfig } from "../define.ts";
import type { RxPath, TxPath } from "../format.ts";
import { joinRx, joinTx } from "../join.ts";
import { DESCRIPTORS, initialiseSring, SringControl } from "./control-words.ts";
import * as layout from "./layout.ts";
import { SRING, SRING_DESC } from "./layout.ts";

const DESC_WORDS = SRING_DESC.size >> 2;
const PADDR_LOW = SRING_DESC.paddr.offset >> 2;
const PADDR_HIGH = PADDR_LOW + 1;
const LEN = SRING_DESC.len.offset >> 2;

/**
 * Skips an invalid descriptor and counts it, once. Completion is in ring order, so this happens only
 * in front of a batch; behind valid ones it ends the batch, and the next batch begins with it.
 */
function skip({ words, counters }: RingConfig, slot: number, length: number): void {
  const bad = length < MIN_PACKET || length > MAX_PACKET ? DROP_BAD_LENGTH : DROP_BAD_ADDRESS;
  counters[bad]++;
  words.set(slot + LEN, 0);
}

class SringTx implements TxPath {
  readonly #control: SringControl;
  readonly #config: RingConfig;

  constructor(control: SringControl, config: RingConfig) {
    this.#control = control;
    this.#config = config;
  }

  gather(batch: Batch): number {
    const { words, buffers, bufs } = this.#config;
    const control = this.#control;
    const mask = bufs - 1;
    buffers.beginSend();
    let index = control.cons;
    for (let left = control.available(); left > 0 && batch.packets < batch.maxPackets; left--) {
      const slot = DESCRIPTORS + (index & mask) * DESC_WORDS;
      const length = words.get(slot + LEN);
      const low = words.get(slot + PADDR_LOW);
      const high = words.get(slot + PADDR_HIGH);
      index = (index + 1) | 0;
      const sane = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = sane ? buffers.toSend(low, high, length) : 0;
      if (address !== 0) batch.push(address, length, index);
      else if (batch.packets === 0) {
        skip(this.#config, slot, length);
        control.cons = index;
      } else break;
    }
    return batch.packets;
  }

  consume(batch: Batch, count: number): boolean {
    if (count > 0) this.#control.cons = batch.cursor[count - 1];
    return this.#control.complete();
  }
}

class SringRx implements RxPath {
  readonly #control: SringControl;
  readonly #config: RingConfig;

  constructor(control: SringControl, config: RingConfig) {
    this.#control = control;
    this.#config = config;
  }

  offer(batch: Batch, max: number): number {
    const { words, buffers, bufs } = this.#config;
    const control = this.#control;
    const mask = bufs - 1;
    buffers.beginReceive();
    const limit = Math.min(batch.maxSegments, max);
    let index = control.cons;
    for (let left = control.available(); left > 0 && batch.segments < limit; left--) {
      const slot = DESCRIPTORS + (index & mask) * DESC_WORDS;
      const length = words.get(slot + LEN);
      const low = words.get(slot + PADDR_LOW);
      const high = words.get(slot + PADDR_HIGH);
      index = (index + 1) | 0;
      const sane = length >= MIN_PACKET && length <= MAX_PACKET;
      const address = sane ? buffers.toReceive(low, high, length, batch.segments) : 0;
      if (address !== 0) batch.addSegment(address, length);
      else if (batch.segments === 0) {
        skip(this.#config, slot, length);
        control.cons = index;
      } else break;
    }
    return batch.segments;
  }

  deliver(batch: Batch): boolean {
    const { words, buffers, bufs } = this.#config;
    const control = this.#control;
    buffers.received(batch);
    const from = control.cons;
    for (let p = 0; p < batch.packets; p++) {
      const slot = DESCRIPTORS + ((from + p) & (bufs - 1)) * DESC_WORDS;
      words.set(slot + LEN, batch.length[p]);
    }
    control.cons = (from + batch.packets) | 0;
    return control.complete();
  }
}

/** The simple ring: one descriptor per packet, no offloads. */
export const sring = defineNic({
  name: "sring",
  programs: new URL("./guest.ts", import.meta.url),
  layouts: layout,
  privateSize: (bufs) => SRING.size + SRING_DESC.size * bufs,
  initialise: initialiseSring,
  tx: (config) => {
    const control = new SringControl("tx", config);
    return joinTx(control, new SringTx(control, config));
  },
  rx: (config) => {
    const control = new SringControl("rx", config);
    return joinRx(control, new SringRx(control, config));
  },
});
