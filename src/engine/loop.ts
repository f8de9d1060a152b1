/**
 * The loop of one NIC: control messages, then guest to port, then port to guest; when nothing moved, a
 * bounded spin; then sleep until the control socket, a kick or the port wakes it.
 *
 * While it is awake the guest need not kick: rings are looked at anyway. Before it sleeps it asks for
 * kicks and looks once more (the guest publishes, then looks whether a kick is wanted: with full barriers
 * on both sides one of the two always sees the other).
 */
import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, Epoll } from "../os/epoll.ts";
import type { QueuePair } from "./pair.ts";

/** Something that is served from the loop besides packets: a frontend's socket, a wake-up descriptor. */
export interface Control {
  /** Handles what is there, within a budget; never blocks. @returns how much was done. */
  handle(): number;
  /** Puts its descriptors into the loop's epoll set, under tags from CONTROL_TAG on. */
  register(epoll: Epoll): void;
  /**
   * After a sleep, for each of its descriptors that is ready, but CONTROL_TAG's.
   * @returns true for a kick, which wakes once: packets are all there is to do
   */
  woken?(tag: number): boolean;
  /** Milliseconds until it wants to be called again; -1: only when its descriptors are ready. */
  readonly timeoutMs: number;
}

/** Tags of the epoll set: queue pairs count from 0, controls from here. */
export const CONTROL_TAG = 1024;

export interface LoopOptions {
  readonly pairs: readonly QueuePair[];
  readonly control: Control;
  /** Longest spin before sleeping, in microseconds; 0 sleeps at once, Infinity never does. */
  readonly spinUs?: number;
  /** Microseconds to pause in every turn, so that more packets gather for the next; 0: none. */
  readonly pauseUs?: number;
  /**
   * Called before a sleep where something besides packets woke the loop or a port lost its link, and once a second:
   * hear the main thread, follow the link.
   */
  readonly housekeeping?: () => void;
  /** A word that counts turns, for another thread that watches over this one. */
  readonly pulse?: Int32Array;
}

/**
 * About what sleeping and being woken costs: who waits for longer loses little by sleeping, and who spins for longer takes
 * the CPU from the guest that it waits for, where there are no more CPUs than threads that want one.
 */
export const DEFAULT_SPIN_US = 50;
/** The spin while longer ones do not pay: a few looks. */
const MIN_SPIN_US = 4;
/** Spin as long as one idle gap in so many ends within the longest spin. */
const WORTHWHILE = 0.25;
/** Weight of the newest gap in the share of short ones. */
const GAP_WEIGHT = 1 / 8;
/** Rounds between looks at the control socket while packets flow. */
const CONTROL_EVERY = 4;
/** Instead of a number of rounds: the socket woke the loop. */
const CONTROL_DUE = -1;
const HOUSEKEEPING_MS = 1000;
/** The first sleep after something moved is as short as this: see `QueuePair.lookAgain`. */
const LOOK_AGAIN_MS = 2;
/** However much moves, and where the loop never sleeps: so often it looks for interrupts that are overdue. */
const OVERDUE_MS = 10;
/** A turn that did less than this may be all there is for now. */
const SPARSE = 4;
/** A word that nobody ever notifies: waiting for it is a sleep with sub-millisecond precision. */
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/** What the port of a pair is watched for. */
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
  readonly #maxSpinUs: number;
  readonly #pauseMs: number;
  readonly #housekeeping: () => void;
  readonly #pulse: Int32Array;
  /** Share of idle gaps, recent ones counting most, that a full spin ends or would have ended. */
  #shortGaps = 1;
  #running = false;
  /** Turns since the control was looked at, or the loop woke. */
  #sinceControl = 0;
  /** Something moved, and nobody has looked again since. */
  #unsettled = true;
  /** When interrupts that are overdue were last looked for. */
  #lookedAt = 0;
  /** Something besides packets woke the loop: housekeeping is to look. */
  #housekeepingDue = true;
  /** Turns, sleeps, idle gaps shorter than the longest spin: the loop's mood, for `status`. */
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

  stop(): void {
    this.#running = false;
  }

  /** Runs until `stop` is called from a handler. Blocks the thread. */
  run(): void {
    this.#running = true;
    let idleSince = 0;
    let keptAt = performance.now();
    while (this.#running) {
      const moved = this.turn();
      if (this.#pauseMs > 0) Atomics.wait(NEVER, 0, 0, this.#pauseMs);
      const now = performance.now();
      if (this.#housekeepingDue || now - keptAt >= HOUSEKEEPING_MS) {
        keptAt = now;
        this.#housekeepingDue = false;
        this.#housekeeping();
      }
      if (now - this.#lookedAt >= OVERDUE_MS) this.#lookForOverdue(now);
      if (moved > 0) {
        this.#unsettled = true;
        if (idleSince !== 0) this.#gapEnded((now - idleSince) * 1000);
        // Where answers do not come soon, the next look is epoll's: what is ready by then ends the wait at once.
        idleSince = this.#sparse && moved < SPARSE ? now : 0;
        if (idleSince !== 0 && this.#running) this.#sleep();
        continue;
      }
      if (idleSince === 0) idleSince = now;
      if ((now - idleSince) * 1000 < this.#spinUs) continue;
      // Housekeeping hears of `stop`, too.
      if (this.#running) this.#sleep();
    }
  }

  /** Ports are about to be exchanged: none is watched until the next sleep. Call before the old ones are closed. */
  forgetPorts(): void {
    for (let i = 0; i < this.#watches.length; i++) this.#watch(i, -1, 0);
  }

  /** After `run`, and after the control gave up its descriptors. */
  close(): void {
    this.#epoll.close();
  }

  /** One round. @returns how much was done: messages and packets. */
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
    let work = false;
    for (const pair of this.#pairs) if (pair.armKicks()) work = true;
    if (!work) {
      this.#watchPorts();
      const timeout = this.#housekeepingDue ? 0 : this.#control.timeoutMs;
      this.loopStats.sleeps++;
      // The rings first, then the message that rang: what a doorbell wants is in them.
      this.#sinceControl = 0;
      const longest = this.#longestSleep(this.#unsettled ? LOOK_AGAIN_MS : HOUSEKEEPING_MS);
      const ready = this.#epoll.wait(timeout < 0 ? longest : Math.min(timeout, longest));
      if (ready === 0 && timeout !== 0) {
        this.#unsettled = false;
        this.#lookForOverdue(performance.now());
      }
      for (let i = 0; i < ready; i++) this.#woken(this.#epoll.tag(i), this.#epoll.events(i));
    }
    for (const pair of this.#pairs) pair.disarmKicks();
  }

  /** Until a direction that rests is due, if that is sooner. */
  #longestSleep(ms: number): number {
    let longest = ms;
    for (const { restMs } of this.#pairs) {
      if (restMs > 0) longest = Math.min(longest, Math.ceil(restMs));
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
   * Back-pressure without spinning: a port is watched for packets only where there are buffers for them,
   * and for room only where it had none.
   */
  #watchPorts(): void {
    for (let i = 0; i < this.#pairs.length; i++) {
      const pair = this.#pairs[i];
      const { fd, linkUp } = pair.port;
      if (linkUp !== this.#watches[i].linkUp) this.#housekeepingDue = true;
      this.#watches[i].linkUp = linkUp;
      const receive = pair.rx !== null && !pair.rx.broken && !pair.rxStarved && !pair.rxResting;
      const events = (receive ? EPOLLIN : 0) | (pair.txBlocked && pair.tx !== null ? EPOLLOUT : 0);
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

  /** Idle gaps are mostly longer than a spin may be. */
  get #sparse(): boolean {
    return this.#shortGaps < WORTHWHILE;
  }

  get #spinUs(): number {
    return this.#sparse ? Math.min(MIN_SPIN_US, this.#maxSpinUs) : this.#maxSpinUs;
  }

  /** Learns from every gap, slept through or not, whether spinning would have caught its end. */
  #gapEnded(us: number): void {
    const short = us < this.#maxSpinUs;
    if (short) this.loopStats.shortGaps++;
    this.#shortGaps += ((short ? 1 : 0) - this.#shortGaps) * GAP_WEIGHT;
  }
}
