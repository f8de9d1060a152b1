/**
 * The loop of one NIC. A turn handles control messages, then transmits, then receives. When nothing
 * moved, the loop spins for a bounded time, then sleeps until the control socket, a kick or the
 * port wakes it.
 *
 * An awake loop polls the rings and asks for no kicks. Before it sleeps it requests kicks and polls
 * once more. The guest publishes first and checks the request second, with full barriers on both
 * sides, so one of the two always sees the other's store.
 */
import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, Epoll } from "../os/epoll.ts";
import type { QueuePair } from "./pair.ts";

/** What the loop serves besides packets: a frontend's socket, a wake-up descriptor. */
export interface Control {
  /** Handles pending messages, within a budget; never blocks. @returns how much was done. */
  handle(): number;
  /** Adds its descriptors to the loop's epoll set, under tags from CONTROL_TAG on. */
  register(epoll: Epoll): void;
  /**
   * Called after a sleep for each of its ready descriptors, except CONTROL_TAG's.
   * @returns true for a kick: the work is in the rings, and no housekeeping is due
   */
  woken?(tag: number): boolean;
  /** Milliseconds until `handle` must be called again; -1: only when its descriptors are ready. */
  readonly timeoutMs: number;
}

/** Tags of the epoll set: queue pairs have those from 0, controls those from here. */
export const CONTROL_TAG = 1024;

export interface LoopOptions {
  readonly pairs: readonly QueuePair[];
  readonly control: Control;
  /** Longest spin before sleeping, in microseconds; 0 sleeps at once, Infinity never does. */
  readonly spinUs?: number;
  /** Microseconds to pause in every turn, so that more packets gather for the next; 0: none. */
  readonly pauseUs?: number;
  /**
   * Called once a second, and when something besides packets woke the loop or a port's link
   * changed: takes the main thread's messages, follows the link.
   */
  readonly housekeeping?: () => void;
  /** A word that counts turns, for a thread that monitors this one. */
  readonly pulse?: Int32Array;
}

/**
 * About the cost of a sleep and a wake-up: for a longer wait, a sleep adds little. A longer spin
 * takes the CPU from the guest that it waits for, if runnable threads outnumber CPUs.
 */
export const DEFAULT_SPIN_US = 50;
/** The spin while longer ones do not pay: a few polls. */
const MIN_SPIN_US = 4;
/** Spin while at least this share of idle gaps ends within the longest spin. */
const WORTHWHILE = 0.25;
/** Weight of the newest gap in the share of short ones. */
const GAP_WEIGHT = 1 / 8;
/** The control socket is read in one of so many turns while packets flow. */
const CONTROL_EVERY = 4;
/** Instead of a number of turns: the socket woke the loop. */
const CONTROL_DUE = -1;
const HOUSEKEEPING_MS = 1000;
/** The first sleep after something moved is as short as this: see `QueuePair.lookAgain`. */
const LOOK_AGAIN_MS = 2;
/** Period of checks for overdue interrupts under load, and if the loop never sleeps. */
const OVERDUE_MS = 10;
/** After a longer pause than any sleep this process was stopped (`#catchUp`). */
const STOPPED_MS = 2000;
/** Most calls of `Control.handle` in a row: a client that never stops sending must not keep it. */
const MAX_CATCH_UP = 256;
/** Longest pause while a held interrupt is nearly due: kicks and packets are not seen meanwhile. */
const HELD_PAUSE_MS = 0.1;
/** Sleeps have whole milliseconds. */
const SHORTEST_SLEEP_MS = 1;
/** A turn that moved less than this may have left the rings empty. */
const SPARSE = 4;
/** A word that is never notified: waiting for it sleeps with sub-millisecond precision. */
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/** How the port of a pair is in the epoll set. */
interface Watch {
  fd: number;
  events: number;
  linkUp: boolean;
}

export class Loop {
  readonly #pairs: readonly QueuePair[];
  readonly #control: Control;
  readonly #epoll = new Epoll(64);
  readonly #watches: Watch[];
  #maxSpinUs: number;
  readonly #pauseMs: number;
  readonly #housekeeping: () => void;
  readonly #pulse: Int32Array;
  /** Share of idle gaps, recent ones counting most, that a full spin ends or would have ended. */
  #shortGaps = 1;
  #running = false;
  /** Turns since the control was handled, or the loop woke. */
  #sinceControl = 0;
  /** Something moved, and overdue interrupts have not been checked since. */
  #unsettled = true;
  /** Time of the last check for overdue interrupts. */
  #lookedAt = 0;
  /** Something besides packets woke the loop. */
  #housekeepingDue = true;
  /** Turns, sleeps, and idle gaps shorter than the longest spin; for `status`. */
  readonly loopStats = { turns: 0, sleeps: 0, shortGaps: 0 };

  constructor(options: LoopOptions) {
    this.#pairs = options.pairs;
    this.#control = options.control;
    this.#maxSpinUs = options.spinUs ?? DEFAULT_SPIN_US;
    this.#pauseMs = (options.pauseUs ?? 0) / 1000;
    this.#housekeeping = options.housekeeping ?? (() => {});
    this.#pulse = options.pulse ?? new Int32Array(1);
    this.#watches = options.pairs.map(() => ({ fd: -1, events: 0, linkUp: true }));
    options.control.register(this.#epoll);
  }

  /** @param us see `LoopOptions` */
  setSpin(us: number): void {
    this.#maxSpinUs = us;
    this.#shortGaps = 1;
  }

  stop(): void {
    this.#running = false;
  }

  /** Runs until `stop` is called from a handler. Blocks the thread. */
  run(): void {
    this.#running = true;
    let idleSince = 0;
    let keptAt = performance.now();
    let turned = keptAt;
    while (this.#running) {
      const moved = this.turn();
      if (this.#pauseMs > 0) Atomics.wait(NEVER, 0, 0, this.#pauseMs);
      const now = performance.now();
      if (now - turned >= STOPPED_MS) this.#catchUp();
      turned = now;
      if (this.#housekeepingDue || now - keptAt >= HOUSEKEEPING_MS) {
        keptAt = now;
        this.#housekeepingDue = false;
        this.#housekeeping();
      }
      if (now - this.#lookedAt >= OVERDUE_MS) this.#lookForOverdue(now);
      if (moved > 0) {
        this.#unsettled = true;
        if (idleSince !== 0) this.#gapEnded((now - idleSince) * 1000);
        // If answers rarely come soon, sleep at once: whatever is ready ends the wait immediately.
        idleSince = this.#sparse && moved < SPARSE ? now : 0;
        if (idleSince !== 0 && this.#running) this.#sleep();
        continue;
      }
      if (idleSince === 0) idleSince = now;
      if ((now - idleSince) * 1000 < this.#spinUs) continue;
      // Housekeeping may have called `stop`.
      if (this.#running) this.#sleep();
    }
  }

  /** Removes all ports from the epoll set. Call before the ports of pairs are closed. */
  forgetPorts(): void {
    for (let i = 0; i < this.#watches.length; i++) this.#watch(i, -1, 0);
  }

  /** Call after `run`, and after the control has released its descriptors. */
  close(): void {
    this.#epoll.close();
  }

  /** @returns how much was done: messages and packets */
  turn(): number {
    this.loopStats.turns++;
    this.#pulse[0]++;
    const rang = this.#sinceControl === CONTROL_DUE;
    let done = 0;
    if (!rang && ++this.#sinceControl >= CONTROL_EVERY) {
      this.#sinceControl = 0;
      done = this.#control.handle();
    }
    for (const pair of this.#pairs) {
      done += pair.drainTx();
      done += pair.fillRx();
    }
    if (rang) this.#sinceControl = 0;
    return done === 0 || rang ? done + this.#control.handle() : done;
  }

  #sleep(): void {
    if (this.#pauseForHeld()) return;
    let work = false;
    for (const pair of this.#pairs) if (pair.armKicks()) work = true;
    if (!work) {
      this.#watchPorts();
      const timeout = this.#housekeepingDue ? 0 : this.#control.timeoutMs;
      this.loopStats.sleeps++;
      // Rings before messages: a doorbell's work is in the rings.
      this.#sinceControl = 0;
      const longest = this.#longestSleep(this.#unsettled ? LOOK_AGAIN_MS : HOUSEKEEPING_MS);
      const slept = performance.now();
      const ready = this.#epoll.wait(timeout < 0 ? longest : Math.min(timeout, longest));
      if (performance.now() - slept >= STOPPED_MS) this.#catchUp();
      if (ready === 0 && timeout !== 0) {
        this.#unsettled = false;
        this.#lookForOverdue(performance.now());
      }
      for (let i = 0; i < ready; i++) this.#woken(this.#epoll.tag(i), this.#epoll.events(i));
    }
    for (const pair of this.#pairs) pair.disarmKicks();
  }

  /**
   * Handles messages before the rings are used, after this process was stopped. A guest that waited
   * in vain may have given the device up meanwhile, and use the memory of its buffers for other
   * things: then the message that takes away the device's access to memory has arrived.
   */
  #catchUp(): void {
    for (let n = 0; n < MAX_CATCH_UP && this.#control.handle() > 0; n++);
  }

  /** @returns true if a held interrupt is due so soon that a sleep would be too long */
  #pauseForHeld(): boolean {
    let left = Number.POSITIVE_INFINITY;
    for (const { heldMs } of this.#pairs) left = Math.min(left, heldMs);
    if (left >= SHORTEST_SLEEP_MS) return false;
    if (left > 0) Atomics.wait(NEVER, 0, 0, Math.min(left, HELD_PAUSE_MS));
    return true;
  }

  /** @returns `ms`, or the time until a back-off or a limit's hold ends or an interrupt is due */
  #longestSleep(ms: number): number {
    let longest = ms;
    for (const { backOffMs, heldMs, limitMs } of this.#pairs) {
      if (backOffMs > 0) longest = Math.min(longest, Math.ceil(backOffMs));
      longest = Math.min(longest, Math.ceil(limitMs));
      longest = Math.min(longest, Math.floor(heldMs));
    }
    return longest;
  }

  #lookForOverdue(now: number): void {
    this.#lookedAt = now;
    for (const pair of this.#pairs) pair.lookAgain();
  }

  #woken(tag: number, events: number): void {
    if (tag === CONTROL_TAG) this.#sinceControl = CONTROL_DUE;
    else if (tag >= CONTROL_TAG) {
      if (this.#control.woken?.(tag) !== true) this.#housekeepingDue = true;
    } else if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) this.#pairs[tag].portWritable();
  }

  /**
   * Back-pressure without spinning: a port is watched for packets only if the guest has buffers for
   * them, and for room only if it blocked.
   */
  #watchPorts(): void {
    for (let i = 0; i < this.#pairs.length; i++) {
      const pair = this.#pairs[i];
      const { fd, linkUp } = pair.port;
      if (linkUp !== this.#watches[i].linkUp) this.#housekeepingDue = true;
      this.#watches[i].linkUp = linkUp;
      const blocked = pair.txBlocked && !pair.txHeld && pair.tx.sending !== null;
      const events = (pair.canReceive ? EPOLLIN : 0) | (blocked ? EPOLLOUT : 0);
      this.#watch(i, linkUp && events !== 0 ? fd : -1, events);
    }
  }

  #watch(tag: number, fd: number, events: number): void {
    const watch = this.#watches[tag];
    if (watch.fd === fd && watch.events === events) return;
    if (watch.fd >= 0 && watch.fd !== fd) this.#epoll.remove(watch.fd);
    if (fd >= 0) {
      if (watch.fd === fd) this.#epoll.modify(fd, events, tag);
      else this.#epoll.add(fd, events, tag);
    }
    watch.fd = fd;
    watch.events = events;
  }

  /** Most idle gaps are longer than the longest spin. */
  get #sparse(): boolean {
    return this.#shortGaps < WORTHWHILE;
  }

  get #spinUs(): number {
    return this.#sparse ? Math.min(MIN_SPIN_US, this.#maxSpinUs) : this.#maxSpinUs;
  }

  /** Learns from every gap, spun or slept, whether a spin catches its end. */
  #gapEnded(us: number): void {
    const short = us < this.#maxSpinUs;
    if (short) this.loopStats.shortGaps++;
    this.#shortGaps += ((short ? 1 : 0) - this.#shortGaps) * GAP_WEIGHT;
  }
}
