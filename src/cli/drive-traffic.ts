/**
 * Traffic through a backend: a guest's driver in this process sends, receives, counts and verifies.
 * It sleeps when it has nothing to do, as a driver does, so a kick or an interrupt that is lost
 * shows as a stall.
 */
import { FEATURES, featureNames } from "../abi/index.ts";
import { failure } from "../errors.ts";
import { ProxyDeviceModel } from "../frontends/proxy/device-model.ts";
import { ProxyHypervisor } from "../frontends/proxy/hypervisor.ts";
import { readProgramObject } from "../frontends/proxy/program-object.ts";
import { RX_QUEUE, TX_QUEUE } from "../frontends/proxy/protocol.ts";
import { GuestDriver } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import { transmitOffloads } from "../memory/offloads.ts";
import { close } from "../os/fd.ts";
import { NumberedFrames } from "./numbered-frames.ts";

export interface DriveOptions {
  readonly socket: string;
  readonly rxBufs: number;
  readonly txBufs: number;
  readonly seconds: number;
  /** Packets to send at most. */
  readonly packets: number;
  /** `rx`: nothing is sent. */
  readonly direction: "tx" | "rx" | "both";
  /** Bytes of sent frames; 0: all lengths. */
  readonly size: number;
  /** `changing`: bursts, single packets and pauses in turn. */
  readonly load: "full" | "changing";
  /** Negotiate what the backend offers, and send packets of every kind that it allows. */
  readonly offloads: boolean;
  /** How long to wait for a backend. */
  readonly waitMs: number;
}

export interface DriveResult {
  /** Names of the features that were negotiated. */
  readonly features: readonly string[];
  readonly seconds: number;
  readonly sent: number;
  /** Taken by the backend: sent on, or dropped and counted there. */
  readonly completed: number;
  /** Published, but not taken when the device was stopped. */
  readonly reclaimed: number;
  readonly received: number;
  readonly receivedBytes: number;
  /** Received frames whose metadata ask for something: a checksum, or to be cut. */
  readonly withMetadata: number;
  /** Numbered frames that came changed, or with other metadata. */
  readonly wrong: number;
  /** Numbered frames that came after a later one, or twice. */
  readonly outOfOrder: number;
  /** Received frames without a number: from a source or a network. */
  readonly foreign: number;
  readonly kicks: number;
  readonly interrupts: { readonly rx: number; readonly tx: number };
  /** Times nothing happened for a second although the backend had something to do. */
  readonly stalls: number;
  readonly sentPps: number;
  readonly receivedPps: number;
}

const BUFFER = 2048;
/** Bytes of the longest frame that is to be cut; rings of few buffers take shorter ones. */
const MAX_LARGE = 40_000;
/** Packets per turn of the driver. */
const BURST = 64;
/** Without an answer from the backend for so long, something was lost. */
const STALL_MS = 1000;
/** After the last packet: how long to wait for what is still in flight. */
const SETTLE_MS = 100;
/** One part of the changing load. */
const PHASE_MS = 100;

const ALL_FEATURES = Object.values(FEATURES).reduce((all, bit) => all | bit, 0);

/** How many packets the driver may send in this turn. */
type Load = (elapsedMs: number, outstanding: number) => number;

const LOADS: Readonly<Record<DriveOptions["load"], Load>> = {
  full: () => BURST,
  changing: (elapsedMs, outstanding) => {
    const phase = Math.floor(elapsedMs / PHASE_MS) % 3;
    if (phase === 0) return BURST;
    // One packet at a time, each waited for; then nothing at all.
    return phase === 1 && outstanding === 0 ? 1 : 0;
  },
};

/**
 * Runs traffic through the backend that connects to the socket. @throws CommandError, BackendError
 */
export function drive(options: DriveOptions): DriveResult {
  const memory = new LocalMemory((options.rxBufs + options.txBufs) * BUFFER + (4 << 20));
  const hypervisor = new ProxyHypervisor(options.socket);
  try {
    if (!hypervisor.accept(options.waitMs)) {
      throw failure(`no backend connected to ${options.socket} within ${options.waitMs} ms`);
    }
    const features = options.offloads ? ALL_FEATURES : 0;
    return new Drive(options, hypervisor, bootGuest(options, hypervisor, memory, features)).run();
  } finally {
    hypervisor.close();
    memory.close();
  }
}

/** A machine's start, and that of the guest's driver up to registered contexts. */
export function bootGuest(
  bufs: { readonly rxBufs: number; readonly txBufs: number },
  hypervisor: ProxyHypervisor,
  memory: LocalMemory,
  features = 0,
): GuestDriver {
  hypervisor.setMemory(memory.ranges.map((range) => ({ ...range, fd: memory.fd })));
  // As the original's QEMU does: nothing is selected before the driver asks for it.
  const offer = hypervisor.start(bufs, 0);
  const programs = readProgramObject(offer.programsFd);
  close(offer.programsFd);
  const model = new ProxyDeviceModel(hypervisor, bufs, offer, programs);
  return new GuestDriver(model, memory, { form: "v1", bufferSize: BUFFER, features });
}

class Drive {
  readonly #options: DriveOptions;
  readonly #hypervisor: ProxyHypervisor;
  readonly #driver: GuestDriver;
  readonly #frames: NumberedFrames;
  readonly #take = (frame: Uint8Array, metadata: Uint8Array): void =>
    this.#received(frame, metadata);
  /** Does the device know metadata? */
  readonly #metadata: boolean;
  #sent = 0;
  #completed = 0;
  #receivedBytes = 0;
  #withMetadata = 0;
  #wrong = 0;
  #outOfOrder = 0;
  #foreign = 0;
  #lastNumber = -1;
  #stalls = 0;
  readonly #interrupts = { rx: 0, tx: 0 };

  constructor(options: DriveOptions, hypervisor: ProxyHypervisor, driver: GuestDriver) {
    this.#options = options;
    this.#hypervisor = hypervisor;
    this.#driver = driver;
    this.#metadata = driver.features !== 0;
    const longest = Math.min(MAX_LARGE, (Math.min(options.rxBufs, options.txBufs) * BUFFER) / 4);
    this.#frames = new NumberedFrames({
      ...{ size: options.size, longest, offloads: transmitOffloads(driver.features) },
    });
  }

  run(): DriveResult {
    this.#driver.open();
    const started = performance.now();
    this.#traffic(started);
    const seconds = (performance.now() - started) / 1000;
    this.#settle();
    const reclaimed = this.#stop();
    return this.#result(seconds, reclaimed);
  }

  #traffic(started: number): void {
    const { seconds, packets, direction, load } = this.#options;
    const allowed = LOADS[load];
    for (;;) {
      const elapsed = performance.now() - started;
      if (elapsed >= seconds * 1000 || (direction !== "rx" && this.#sent >= packets)) return;
      let moved = 0;
      if (direction !== "rx") {
        const most = allowed(elapsed, this.#driver.tx[0].outstanding);
        moved += this.#send(Math.min(most, packets - this.#sent));
      }
      moved += this.#collect();
      if (moved === 0) this.#sleep(Math.min(PHASE_MS, seconds * 1000 - elapsed));
    }
  }

  #send(most: number): number {
    let n = 0;
    for (; n < most; n++) {
      if (!this.#sendOne()) break;
      this.#sent++;
    }
    return n;
  }

  /** @returns false if the ring is full */
  #sendOne(): boolean {
    const frame = this.#frames.make(this.#sent);
    if (this.#driver.tx[0].free * BUFFER < frame.length) return false;
    const metadata = this.#metadata ? this.#frames.metadata(this.#sent) : null;
    return this.#driver.send(0, frame, metadata);
  }

  #collect(): number {
    const completed = this.#driver.clean(0);
    this.#completed += completed;
    return completed + this.#driver.receive(0, this.#take, BURST);
  }

  #received(frame: Uint8Array, metadata: Uint8Array): void {
    this.#receivedBytes += frame.length;
    const number = this.#frames.check(frame, this.#metadata ? metadata : null);
    if (this.#metadata && metadata[0] !== 0) this.#withMetadata++;
    if (number === -1) this.#foreign++;
    else if (number === -2) this.#wrong++;
    else if (number <= this.#lastNumber) this.#outOfOrder++;
    else this.#lastNumber = number;
  }

  /** As a driver: ask for interrupts, look once more, wait. */
  #sleep(ms: number): void {
    const { tx, rx } = this.#driver;
    const outstanding = tx[0].outstanding > 0;
    const ready = (outstanding && tx[0].arm(1)) || rx[0].arm(1);
    if (ready) return;
    const since = performance.now();
    const woken = this.#hypervisor.wait(Math.max(1, Math.ceil(outstanding ? STALL_MS : ms)));
    this.#countInterrupts();
    if (!woken && outstanding && performance.now() - since >= STALL_MS) this.#stalls++;
  }

  #countInterrupts(): void {
    this.#interrupts.rx += this.#hypervisor.interrupts(RX_QUEUE);
    this.#interrupts.tx += this.#hypervisor.interrupts(TX_QUEUE);
  }

  /**
   * Until all that was sent is taken, and nothing comes back any more; an endless source never
   * ends.
   */
  #settle(): void {
    if (this.#options.direction === "rx") return;
    const stop = performance.now() + 2 * STALL_MS;
    let quietSince = performance.now();
    while (performance.now() < stop) {
      if (this.#collect() > 0) quietSince = performance.now();
      const idle = performance.now() - quietSince;
      if (this.#driver.tx[0].outstanding === 0 && idle >= SETTLE_MS) return;
      if (idle > 0) this.#hypervisor.wait(1);
      this.#countInterrupts();
    }
  }

  /** @returns packets that the backend did not take */
  #stop(): number {
    const driver = this.#driver;
    driver.disable();
    // What was completed before the stop is the guest's, then the rest comes back.
    this.#completed += driver.clean(0);
    while (driver.receive(0, this.#take) > 0);
    driver.close();
    for (const queue of [RX_QUEUE, TX_QUEUE]) this.#hypervisor.setContext(queue, 0);
    return driver.tx[0].reclaimedPackets;
  }

  #result(seconds: number, reclaimed: number): DriveResult {
    const { received, kicks } = this.#driver.counters;
    return {
      features: featureNames(this.#driver.features),
      seconds,
      sent: this.#sent,
      completed: this.#completed,
      reclaimed,
      received,
      receivedBytes: this.#receivedBytes,
      withMetadata: this.#withMetadata,
      wrong: this.#wrong,
      outOfOrder: this.#outOfOrder,
      foreign: this.#foreign,
      kicks,
      interrupts: { ...this.#interrupts },
      stalls: this.#stalls,
      sentPps: this.#sent / seconds,
      receivedPps: received / seconds,
    };
  }
}
