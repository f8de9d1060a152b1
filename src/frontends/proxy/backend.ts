/**
 * Carries out the requests of the protocol on one device: state, refusals, rings. It knows no
 * socket. Each request comes whole and is answered at once, on the thread that also moves the
 * packets, so no I/O is in flight when the memory table or a ring changes.
 */
import { mapContiguous } from "../../engine/contexts.ts";
import { drainTransmit, unsentPackets } from "../../engine/drain.ts";
import type { QueuePair } from "../../engine/pair.ts";
import type { RingSettings } from "../../engine/registered-ring.ts";
import { RegionTable } from "../../memory/regions.ts";
import { errnoName, OsError } from "../../os/errors.ts";
import { isEventFd, prepareToSignalPeers } from "../../os/eventfd.ts";
import { newCounters } from "./counters.ts";
import { HANDLERS, type Reply } from "./handlers.ts";
import { contextSizes, features, parametersOf, regionsOf } from "./payloads.ts";
import { type OfferOptions, type Parameters, ProgramServer } from "./program-server.ts";
import {
  getU64,
  MAX_REGIONS,
  MEMORY_MAP,
  MTU,
  NOTIFIER,
  QUEUE_CONTEXT,
  QUEUES,
  REQUESTS,
  type RequestName,
  RX_QUEUE,
  TX_QUEUE,
} from "./protocol.ts";
import { ProxyQueue, type QueueWatch } from "./queue.ts";
import { UpgradeSignal } from "./upgrade-signal.ts";

/**
 * The VMM waits for the reply with a CPU of the guest: long enough for a busy TAP, too short for
 * the guest to notice.
 */
const STOP_DRAIN_MS = 100;

export interface BackendOptions extends QueueWatch, OfferOptions {
  /** Features to offer, of those of the ring format. */
  readonly features: number;
  readonly pair: QueuePair;
  /** Use guest memory in files that cannot be sealed, too. */
  readonly allowUnsealed?: boolean;
}

const DONE: Reply = {};
const NO_QUEUE: Reply = { refused: "no such queue, or no SET_PARAMETERS before" };
const NO_EVENTFD: Reply = { refused: "the descriptor is not an eventfd" };

export class ProxyBackend {
  readonly memory: RegionTable;
  readonly queues: readonly ProxyQueue[];
  readonly counters = newCounters();
  firstRefusal = "";
  lastRefusal = "";
  selectedFeatures = 0;
  parameters: Parameters | null = null;
  readonly #options: BackendOptions;
  readonly #programs: ProgramServer;
  readonly #upgrade = new UpgradeSignal();

  constructor(options: BackendOptions) {
    prepareToSignalPeers();
    this.#options = options;
    this.#programs = new ProgramServer(options);
    const { rx, tx } = options.pair;
    this.queues = [rx, tx].map((queue, index) => new ProxyQueue(index, queue, options));
    this.memory = new RegionTable({
      maxRegions: MAX_REGIONS,
      granularity: 1,
      allowUnsealed: options.allowUnsealed ?? false,
      warn: (_code, message) => options.warn(message),
    });
  }

  get offeredFeatures(): number {
    return this.#options.features & this.#options.device.features;
  }

  /** A direction is enabled. */
  get running(): boolean {
    return this.queues.some(({ queue }) => queue.enabled);
  }

  /**
   * Answers one request of the right size. It removes the descriptors that it keeps from `fds`. An
   * error of the operating system is a refusal, and does not end the connection.
   */
  handle(name: RequestName, payload: DataView, fds: number[]): Reply {
    this.counters.requests++;
    let reply: Reply;
    try {
      reply = this.#answer(name, payload, fds);
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      reply = { refused: error.message };
    }
    if ("refused" in reply) this.refuse(`${name}: ${reply.refused}`);
    return reply;
  }

  /** Counts a refusal and keeps its reason for `status`. */
  refuse(reason: string): void {
    this.counters.refused++;
    if (this.firstRefusal === "") this.firstRefusal = reason;
    this.lastRefusal = reason;
  }

  #answer(name: RequestName, payload: DataView, fds: number[]): Reply {
    const { whileRunning, fds: limits } = REQUESTS[name];
    if (whileRunning === "refused" && this.running) {
      return { refused: "packets flow: disable both directions" };
    }
    if (limits !== null && (fds.length < limits[0] || fds.length > limits[1])) {
      return { refused: `${fds.length} descriptors: ${limits[0]} to ${limits[1]} belong to it` };
    }
    return HANDLERS[name](this, payload, fds);
  }

  /**
   * Stops both directions if a valid request comes that no driver sends while it is up: the machine
   * was reset. Nothing is drained: the rings lie in memory that the new guest uses for other
   * things.
   */
  #stopForNewGuest(name: RequestName): void {
    if (!this.running || REQUESTS[name].whileRunning !== "stops") return;
    for (const { queue } of this.queues) {
      queue.disable();
      queue.forget();
    }
    this.counters.impliedStops++;
    this.#options.warn(`${name} while packets flow: the machine was reset; both directions stop`);
  }

  /* The device as a whole */

  getFeatures(): Reply {
    return { payload: features(this.offeredFeatures) };
  }

  /** Also while packets flow: rings are attached anew, with the features selected now. */
  setFeatures(payload: DataView): Reply {
    const selected = this.offeredFeatures & payload.getUint32(0, true);
    if (selected === this.selectedFeatures) return DONE;
    for (const { queue } of this.queues) queue.detach();
    this.selectedFeatures = selected;
    for (const { queue } of this.queues) queue.attach(this.#ringSettings());
    return DONE;
  }

  /** Contexts of other sizes are unregistered: the guest has to register them anew. */
  setParameters(payload: DataView): Reply {
    const { device } = this.#options;
    const wanted = parametersOf(payload, device);
    if (typeof wanted === "string") return { refused: wanted };
    this.#stopForNewGuest("SET_PARAMETERS");
    const { parameters } = this;
    if (parameters?.rxBufs !== wanted.rxBufs || parameters.txBufs !== wanted.txBufs) {
      for (const { queue } of this.queues) queue.forget();
    }
    this.parameters = wanted;
    const { rx, tx } = this.#options.pair;
    rx.configure(device, wanted.rxBufs);
    tx.configure(device, wanted.txBufs);
    return { payload: contextSizes(rx.contextSize, tx.contextSize) };
  }

  getPrograms(): Reply {
    const { parameters } = this;
    if (parameters === null) return { refused: "SET_PARAMETERS comes first" };
    const problem = this.#programs.problemOf(parameters);
    return problem === null ? { fd: this.#programs.object(parameters) } : { refused: problem };
  }

  /** Replaces the whole table; see `Queue.memoryChanged`. */
  setMemoryTable(payload: DataView, fds: number[]): Reply {
    const count = payload.getUint32(MEMORY_MAP.count, true);
    if (count > MAX_REGIONS || count !== fds.length) {
      return { refused: `${count} regions with ${fds.length} descriptors: 0 to ${MAX_REGIONS}` };
    }
    const errno = this.memory.replace(regionsOf(payload, count), fds.splice(0));
    for (const queue of this.queues) this.#memoryChanged(queue);
    // No I/O is in flight, and contexts have mappings of their own: the old table is unused.
    this.memory.prune();
    return errno === 0 ? DONE : { refused: `a region cannot be mapped: ${errnoName(errno)}` };
  }

  #memoryChanged({ name, queue }: ProxyQueue): void {
    if (!queue.memoryChanged(this.memory, this.#ringSettings())) return;
    this.counters.contextsLost++;
    this.#options.warn(`${name}: its context is not in the new memory table; the queue is paused`);
  }

  #queueAt(payload: DataView, offset: number): ProxyQueue | null {
    const index = payload.getUint32(offset, true);
    return this.parameters === null || index >= QUEUES ? null : this.queues[index];
  }

  setQueueContext(payload: DataView): Reply {
    const proxied = this.#queueAt(payload, QUEUE_CONTEXT.queue);
    if (proxied === null) return NO_QUEUE;
    const { name, queue } = proxied;
    const address = getU64(payload, QUEUE_CONTEXT.address);
    if (address === 0) {
      this.#stopForNewGuest("SET_QUEUE_CTX");
      queue.forget();
      return DONE;
    }
    const context = mapContiguous(this.memory, address, queue.contextSize);
    if (typeof context === "string") {
      return { refused: `context of ${name} at 0x${address.toString(16)} ${context}` };
    }
    this.#stopForNewGuest("SET_QUEUE_CTX");
    queue.register(context);
    return DONE;
  }

  setQueueKick(payload: DataView, fds: number[]): Reply {
    const queue = this.#queueAt(payload, NOTIFIER.queue);
    if (queue === null) return NO_QUEUE;
    if (!fds.every(isEventFd)) return NO_EVENTFD;
    try {
      queue.setKick(fds[0] ?? -1);
    } catch (error) {
      return { refused: (error as Error).message };
    }
    fds.length = 0;
    return DONE;
  }

  setQueueIrq(payload: DataView, fds: number[]): Reply {
    const queue = this.#queueAt(payload, NOTIFIER.queue);
    if (queue === null) return NO_QUEUE;
    if (!fds.every(isEventFd)) return NO_EVENTFD;
    queue.setIrq(fds.pop() ?? -1);
    return DONE;
  }

  setUpgrade(fds: number[]): Reply {
    if (!fds.every(isEventFd)) return NO_EVENTFD;
    this.#upgrade.set(fds.pop()!);
    return DONE;
  }

  /**
   * Asks the VMM for an upgrade, which tells the guest to close, fetch programs and open again.
   * @returns false if it gave no descriptor for that
   */
  signalUpgrade(): boolean {
    return this.#upgrade.send();
  }

  /** Interrupts the guest; the vector is the queue's index. */
  fire(vector: number): void {
    if (!this.queues[vector].fire()) this.counters.interruptsDropped++;
  }

  /* Directions */

  enable(index: number): Reply {
    if (this.parameters === null) return { refused: "SET_PARAMETERS comes first" };
    if (this.memory.ranges.length === 0) return { refused: "there is no memory table" };
    const missing = this.queues.map((each) => each.missing()).find((each) => each !== null);
    if (missing !== undefined) return { refused: missing };
    if (!this.queues[index].queue.enabled) this.queues[index].queue.enable(this.#ringSettings());
    return DONE;
  }

  /** The guest reclaims right after the reply, so published packets are sent first. */
  disable(index: number): Reply {
    const { queue } = this.queues[index];
    if (!queue.enabled) return DONE;
    const { pair } = this.#options;
    if (queue.direction === "tx" && queue.ring !== null) {
      drainTransmit(pair, STOP_DRAIN_MS);
      this.counters.unsentAtStop += unsentPackets(pair);
    }
    queue.disable();
    return DONE;
  }

  #ringSettings(): RingSettings {
    return { memory: this.memory, features: this.selectedFeatures, mtu: MTU };
  }

  /** Ends a connection: sends what is published, then drops all that the connection set up. */
  release(): void {
    this.disable(RX_QUEUE);
    this.disable(TX_QUEUE);
    for (const queue of this.queues) {
      queue.release();
      queue.queue.configure(this.#options.device, 0);
    }
    this.#upgrade.set(-1);
    this.parameters = null;
    this.selectedFeatures = 0;
    this.memory.clear();
  }
}
