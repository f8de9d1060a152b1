/**
 * Numbered frames through a served NIC, both ways at once: a guest's driver in this process at one
 * end, a TAP on a bridge at the other. Each end counts what it lacks, gets twice or out of order,
 * and the longest time without a frame.
 */
import { GuestDriver } from "../../src/guest/driver.ts";
import { LocalMemory } from "../../src/guest/memory.ts";
import { VfioUserClient } from "../../src/guest/vfio-user-client.ts";
import { isTestFrame, type TapPair, testFrame } from "./net.ts";

const VECTORS = 3;
const LENGTH = 100;
/** More wait at most, so that no queue on the way overflows: a TAP holds 500 frames. */
const MOST_WAITING = 400;

/** What one end has received. */
export class Numbers {
  received = 0;
  duplicated = 0;
  reordered = 0;
  /** Milliseconds. */
  longestGap = 0;
  #next = 0;
  readonly #missing = new Set<number>();
  #last = 0;

  take(number: number): void {
    const now = performance.now();
    if (this.#last !== 0) this.longestGap = Math.max(this.longestGap, now - this.#last);
    this.#last = now;
    this.received++;
    if (number >= this.#next) {
      for (let n = this.#next; n < number; n++) this.#missing.add(n);
      this.#next = number + 1;
    } else if (this.#missing.delete(number)) this.reordered++;
    else this.duplicated++;
  }

  /** Frames that never came, of those that were sent. */
  lost(sent: number): number {
    return this.#missing.size + Math.max(0, sent - this.#next);
  }

  get expected(): number {
    return this.#next;
  }

  restartGap(): void {
    this.longestGap = 0;
    this.#last = performance.now();
  }
}

export interface LoadOptions {
  readonly socket: string;
  readonly pair: TapPair;
  /** Frames a second and direction. */
  readonly rate: number;
  /** The driver takes other sets while frames flow. */
  readonly overlap?: boolean;
}

export class NumberedLoad {
  readonly toHost = new Numbers();
  readonly toGuest = new Numbers();
  sentByGuest = 0;
  sentByHost = 0;
  readonly driver: GuestDriver;
  readonly client: VfioUserClient;
  readonly #memory = new LocalMemory(4 << 20);
  readonly #options: LoadOptions;
  #since = 0;
  #owed = 0;
  /** Why it has stopped by itself. */
  failed: Error | undefined;
  #isRunning = false;
  #ended: Promise<void> = Promise.resolve();

  constructor(options: LoadOptions) {
    this.#options = options;
    this.client = new VfioUserClient(options.socket, this.#memory, VECTORS);
    this.driver = new GuestDriver(this.client, this.#memory, { overlap: options.overlap });
    this.driver.open();
  }

  /** Sends and receives between the turns of the event loop, until `stop`. */
  start(): void {
    this.#isRunning = true;
    this.#since = performance.now();
    this.#ended = new Promise((resolve, reject) => {
      const turn = (): void => {
        // After `close` there is no memory any more.
        if (!this.#isRunning) return resolve();
        try {
          this.turn(true);
        } catch (error) {
          this.failed = error as Error;
          return reject(this.failed);
        }
        setImmediate(turn);
      };
      turn();
    });
    this.#ended.catch(() => {});
  }

  turn(sends: boolean): void {
    const now = performance.now();
    this.#owed = Math.min(this.#owed + ((now - this.#since) * this.#options.rate) / 1000, 64);
    this.#since = now;
    for (; sends && this.#owed >= 1; this.#owed--) this.#sendBoth();
    for (const frame of this.#options.pair.take(isTestFrame)) this.toHost.take(numberOf(frame));
    this.driver.receive(0, (frame) => {
      if (isTestFrame(frame)) this.toGuest.take(numberOf(frame));
    });
    this.driver.clean(0);
    if (this.#options.overlap === true) this.driver.upgrade.step();
  }

  #sendBoth(): void {
    const { pair } = this.#options;
    if (this.sentByGuest - this.toHost.expected < MOST_WAITING) {
      if (this.driver.send(0, frameOf(this.sentByGuest, 1))) this.sentByGuest++;
    }
    if (this.sentByHost - this.toGuest.expected < MOST_WAITING) {
      if (pair.give(frameOf(this.sentByHost, 2)) > 0) this.sentByHost++;
    }
  }

  /** Lets everything arrive. @throws what went wrong meanwhile */
  async stop(): Promise<void> {
    this.#isRunning = false;
    await this.#ended;
    const end = performance.now() + 2000;
    while (this.#waiting > 0 && performance.now() < end) {
      this.turn(false);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  get #waiting(): number {
    return this.sentByGuest - this.toHost.expected + (this.sentByHost - this.toGuest.expected);
  }

  /** Of both directions. */
  get result() {
    const { toHost, toGuest } = this;
    return {
      lost: toHost.lost(this.sentByGuest) + toGuest.lost(this.sentByHost),
      duplicated: toHost.duplicated + toGuest.duplicated,
      reordered: toHost.reordered + toGuest.reordered,
    };
  }

  /** Longest time without a frame at either end, since the last call. */
  gap(): number {
    const gap = Math.max(this.toHost.longestGap, this.toGuest.longestGap);
    this.toHost.restartGap();
    this.toGuest.restartGap();
    return gap;
  }

  close(): void {
    this.#isRunning = false;
    this.client.close();
    this.#memory.close();
  }
}

function frameOf(number: number, end: number): Uint8Array {
  const frame = testFrame(number, LENGTH);
  frame[11] = end;
  return frame;
}

function numberOf(frame: Uint8Array): number {
  return new DataView(frame.buffer, frame.byteOffset).getUint32(14);
}
