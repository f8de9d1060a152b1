/**
 * What the requests of the protocol do to one device: state, refusals, rings. It knows no socket; each request comes
 * whole and is answered at once, on the thread that also moves the packets, so nothing is ever in flight when the
 * memory table or a ring is changed.
 */
import { validQueueBufs } from "../../abi/index.ts";
import type { QueuePair } from "../../engine/pair.ts";
import { type RegionRequest, RegionTable } from "../../memory/regions.ts";
import { mapContiguous } from "../../nic/contexts.ts";
import { errnoName, OsError } from "../../os/errors.ts";
import { isEventFd, prepareToSignalPeers, signalPeer } from "../../os/eventfd.ts";
import { close } from "../../os/fd.ts";
import { drainTx, unsentPackets } from "./drain.ts";
import { type OfferOptions, type Parameters, ProgramServer } from "./program-server.ts";
import {
  CONTEXT_SIZES,
  getU64,
  MAX_REGIONS,
  MEMORY_MAP,
  NOTIFIER,
  PARAMETERS,
  putU64,
  QUEUE_CONTEXT,
  QUEUES,
  REGION,
  REQUESTS,
  type RequestName,
  RX_QUEUE,
  TX_QUEUE,
} from "./protocol.ts";
import { ProxyQueue, type QueueWatch, type RingSettings } from "./queue.ts";

export interface BackendOptions extends QueueWatch, OfferOptions {
  /** Features that may be offered, of those that the device has. */
  readonly features: number;
  readonly pair: QueuePair;
  /** Use guest memory in files that cannot be sealed, too. */
  readonly allowUnsealed?: boolean;
}

/** What a request comes to. A refusal changes nothing. */
export type Reply =
  | { readonly refused: string }
  | {
      readonly payload?: Uint8Array;
      /** Goes along, and is closed here once it is sent. */
      readonly fd?: number;
    };

const DONE: Reply = {};
const NO_EVENTFD: Reply = { refused: "the descriptor is not an eventfd" };

export class ProxyBackend {
  readonly memory: RegionTable;
  readonly queues: readonly ProxyQueue[];
  readonly counters = {
    requests: 0,
    refused: 0,
    /** Packets that the guest had published and that were not sent when transmission was stopped. */
    unsentAtStop: 0,
    /** Times a changed memory table took a registered context away. */
    contextsLost: 0,
    /** Interrupts that had no descriptor to go to. */
    interruptsDropped: 0,
    /** Times a request stopped the device because the machine was reset without a word. */
    impliedStops: 0,
  };
  firstRefusal = "";
  lastRefusal = "";
  selectedFeatures = 0;
  parameters: Parameters | null = null;
  readonly #options: BackendOptions;
  readonly #programs: ProgramServer;
  #upgradeFd = -1;

  constructor(options: BackendOptions) {
    prepareToSignalPeers();
    this.#options = options;
    this.#programs = new ProgramServer(options);
    this.queues = ["RX0", "TX0"].map((name, index) => new ProxyQueue(name, index, options));
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
    return this.queues.some((queue) => queue.enabled);
  }

  /** Answers one request whose size is right. It takes the descriptors that it keeps out of `fds`. */
  handle(name: RequestName, payload: DataView, fds: number[]): Reply {
    this.counters.requests++;
    const reply = this.#answerOrRefuse(name, payload, fds);
    if ("refused" in reply) this.refuse(`${name}: ${reply.refused}`);
    return reply;
  }

  /** A refusal by the system does not end the connection. */
  #answerOrRefuse(name: RequestName, payload: DataView, fds: number[]): Reply {
    try {
      return this.#answer(name, payload, fds);
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      return { refused: error.message };
    }
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
   * Of a request that no driver sends while it is up, once it is known to be sound: its guest is a
   * new one. What the old one left is not drained: its rings are the new one's memory.
   */
  #stopForNewGuest(name: RequestName): void {
    if (!this.running || REQUESTS[name].whileRunning !== "stops") return;
    for (const queue of this.queues) {
      queue.enabled = false;
      queue.forget();
    }
    this.counters.impliedStops++;
    this.#options.warn(`${name} while packets flow: the machine was reset; both directions stop`);
  }

  /* The device as a whole */

  getFeatures(): Reply {
    const payload = new Uint8Array(8);
    putU64(new DataView(payload.buffer), 0, this.offeredFeatures);
    return { payload };
  }

  /** Also while packets flow: rings stand still meanwhile, and go on by what is selected now. */
  setFeatures(payload: DataView): Reply {
    const selected = this.offeredFeatures & payload.getUint32(0, true);
    if (selected === this.selectedFeatures) return DONE;
    for (const queue of this.queues) queue.detachRing();
    this.selectedFeatures = selected;
    this.#attachRings();
    return DONE;
  }

  /** Contexts of other sizes are forgotten: the guest has to register them anew. */
  setParameters(payload: DataView): Reply {
    const at = (offset: number): number => payload.getUint32(offset, true);
    const pairs = [at(PARAMETERS.rxQueues), at(PARAMETERS.txQueues)];
    if (pairs[0] !== 1 || pairs[1] !== 1) {
      return { refused: `${pairs[0]} receive and ${pairs[1]} transmit queues: one each is served` };
    }
    const [rxBufs, txBufs] = [at(PARAMETERS.rxBufs), at(PARAMETERS.txBufs)];
    if (!validQueueBufs(rxBufs) || !validQueueBufs(txBufs)) {
      return { refused: `${rxBufs} and ${txBufs} buffers: powers of two from 16 to 8192` };
    }
    const { device } = this.#options;
    const problem = device.sizeProblem?.(rxBufs) ?? device.sizeProblem?.(txBufs) ?? null;
    if (problem !== null) return { refused: problem };
    this.#stopForNewGuest("SET_PARAMETERS");
    const { parameters } = this;
    if (parameters?.rxBufs !== rxBufs || parameters.txBufs !== txBufs) {
      for (const queue of this.queues) queue.forget();
    }
    this.parameters = { rxBufs, txBufs };
    const answer = new Uint8Array(8);
    const view = new DataView(answer.buffer);
    view.setUint32(CONTEXT_SIZES.rx, device.contextSize(rxBufs), true);
    view.setUint32(CONTEXT_SIZES.tx, device.contextSize(txBufs), true);
    return { payload: answer };
  }

  getPrograms(): Reply {
    if (this.parameters === null) return { refused: "SET_PARAMETERS comes first" };
    const problem = this.#programs.problemOf(this.parameters);
    return problem === null ? { fd: this.#programs.object(this.parameters) } : { refused: problem };
  }

  /* Memory */

  /** The whole table at once. Rings stand still meanwhile; contexts are looked for in the new one. */
  setMemoryTable(payload: DataView, fds: number[]): Reply {
    const count = payload.getUint32(MEMORY_MAP.count, true);
    if (count > MAX_REGIONS || count !== fds.length) {
      return { refused: `${count} regions with ${fds.length} descriptors: 0 to ${MAX_REGIONS}` };
    }
    for (const queue of this.queues) queue.detachRing();
    const errno = this.memory.replace(regionsOf(payload, count), fds.splice(0));
    for (const queue of this.queues) this.#findContext(queue);
    // No view of the old table is left: contexts were looked up anew, packets are never in flight here.
    this.memory.prune();
    this.#attachRings();
    return errno === 0 ? DONE : { refused: `a region cannot be mapped: ${errnoName(errno)}` };
  }

  #findContext(queue: ProxyQueue): void {
    if (this.parameters === null || queue.findContext(this.memory, this.#contextSize(queue)))
      return;
    this.counters.contextsLost++;
    this.#options.warn(
      `${queue.name}: its context is not in the new memory table; it stands still`,
    );
  }

  /* Queues */

  #queueAt(payload: DataView, offset: number): ProxyQueue | null {
    const index = payload.getUint32(offset, true);
    return this.parameters === null || index >= QUEUES ? null : this.queues[index];
  }

  #bufs(queue: ProxyQueue): number {
    const { rxBufs, txBufs } = this.parameters!;
    return queue.receive ? rxBufs : txBufs;
  }

  #contextSize(queue: ProxyQueue): number {
    return this.#options.device.contextSize(this.#bufs(queue));
  }

  setQueueContext(payload: DataView): Reply {
    const queue = this.#queueAt(payload, QUEUE_CONTEXT.queue);
    if (queue === null) return { refused: "no such queue, or no SET_PARAMETERS before" };
    const address = getU64(payload, QUEUE_CONTEXT.address);
    if (address === 0) {
      this.#stopForNewGuest("SET_QUEUE_CTX");
      queue.forget();
      return DONE;
    }
    const context = mapContiguous(this.memory, address, this.#contextSize(queue));
    if (typeof context === "string") {
      return { refused: `context of ${queue.name} at 0x${address.toString(16)} ${context}` };
    }
    this.#stopForNewGuest("SET_QUEUE_CTX");
    queue.register(address, context, this.#bufs(queue));
    return DONE;
  }

  setQueueKick(payload: DataView, fds: number[]): Reply {
    const queue = this.#queueAt(payload, NOTIFIER.queue);
    if (queue === null) return { refused: "no such queue, or no SET_PARAMETERS before" };
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
    if (queue === null) return { refused: "no such queue, or no SET_PARAMETERS before" };
    if (!fds.every(isEventFd)) return NO_EVENTFD;
    queue.setIrq(fds.pop() ?? -1);
    return DONE;
  }

  setUpgrade(fds: number[]): Reply {
    if (!fds.every(isEventFd)) return NO_EVENTFD;
    if (this.#upgradeFd >= 0) close(this.#upgradeFd);
    this.#upgradeFd = fds.pop()!;
    return DONE;
  }

  /**
   * Asks the VMM for an upgrade, which tells the guest to close, fetch programs and open again.
   * @returns false where it gave no descriptor for that
   */
  signalUpgrade(): boolean {
    if (this.#upgradeFd < 0) return false;
    return signalPeer(this.#upgradeFd);
  }

  /** Interrupts the guest; the vector is the queue's index. */
  fire(vector: number): void {
    if (!this.queues[vector].fire()) this.counters.interruptsDropped++;
  }

  /* Directions */

  enable(index: number): Reply {
    const missing = this.#missing();
    if (missing !== null) return { refused: missing };
    const queue = this.queues[index];
    if (queue.enabled) return DONE;
    queue.enabled = true;
    queue.attachRing(this.#settings(queue), true);
    return DONE;
  }

  /** Why packets cannot flow yet; null where they can. */
  #missing(): string | null {
    if (this.parameters === null) return "SET_PARAMETERS comes first";
    if (this.memory.ranges.length === 0) return "there is no memory table";
    for (const { name, context, kickFd, irqFd } of this.queues) {
      if (context === null) return `${name} has no context`;
      if (kickFd < 0) return `${name} has no kick descriptor`;
      if (irqFd < 0) return `${name} has no interrupt descriptor`;
    }
    return null;
  }

  disable(index: number): Reply {
    const queue = this.queues[index];
    if (!queue.enabled) return DONE;
    if (!queue.receive) this.#drain(queue);
    queue.enabled = false;
    queue.detachRing();
    return DONE;
  }

  /** The guest reclaims right after the reply: what was published goes out, as far as the port takes it. */
  #drain(queue: ProxyQueue): void {
    const { pair } = this.#options;
    if (pair.tx === null) return;
    drainTx(pair, this.#bufs(queue));
    this.counters.unsentAtStop += unsentPackets(pair.tx, this.#bufs(queue));
  }

  #attachRings(): void {
    for (const queue of this.queues) {
      if (queue.enabled) queue.attachRing(this.#settings(queue), false);
    }
  }

  #settings(queue: ProxyQueue): RingSettings {
    return { memory: this.memory, bufs: this.#bufs(queue), features: this.selectedFeatures };
  }

  /** The end of a connection: what is published is sent, then everything of it is forgotten. */
  release(): void {
    this.disable(RX_QUEUE);
    this.disable(TX_QUEUE);
    for (const queue of this.queues) queue.release();
    if (this.#upgradeFd >= 0) close(this.#upgradeFd);
    this.#upgradeFd = -1;
    this.parameters = null;
    this.selectedFeatures = 0;
    this.memory.clear();
  }
}

type Handler = (backend: ProxyBackend, payload: DataView, fds: number[]) => Reply;

const HANDLERS: Readonly<Record<RequestName, Handler>> = {
  GET_FEATURES: (backend) => backend.getFeatures(),
  SET_FEATURES: (backend, payload) => backend.setFeatures(payload),
  SET_PARAMETERS: (backend, payload) => backend.setParameters(payload),
  GET_PROGRAMS: (backend) => backend.getPrograms(),
  SET_MEM_TABLE: (backend, payload, fds) => backend.setMemoryTable(payload, fds),
  SET_QUEUE_CTX: (backend, payload) => backend.setQueueContext(payload),
  SET_QUEUE_KICK: (backend, payload, fds) => backend.setQueueKick(payload, fds),
  SET_QUEUE_IRQ: (backend, payload, fds) => backend.setQueueIrq(payload, fds),
  SET_UPGRADE: (backend, _payload, fds) => backend.setUpgrade(fds),
  RX_ENABLE: (backend) => backend.enable(RX_QUEUE),
  TX_ENABLE: (backend) => backend.enable(TX_QUEUE),
  RX_DISABLE: (backend) => backend.disable(RX_QUEUE),
  TX_DISABLE: (backend) => backend.disable(TX_QUEUE),
};

function regionsOf(payload: DataView, count: number): RegionRequest[] {
  return Array.from({ length: count }, (_, i) => {
    const at = MEMORY_MAP.regions + i * MEMORY_MAP.REGION_SIZE;
    return {
      address: getU64(payload, at + REGION.address),
      size: getU64(payload, at + REGION.size),
      offset: getU64(payload, at + REGION.offset),
      readable: true,
      writable: true,
    };
  });
}
