/**
 * What the requests of the protocol do to one device: state, refusals, rings. It knows no socket; each request comes
 * whole and is answered at once, on the thread that also moves the packets, so nothing is ever in flight when the
 * memory table or a ring is changed.
 */
import { type ProgramName, type ProgramSet, validQueueBufs } from "../../abi/index.ts";
import type { Device, RxHalf, TxHalf } from "../../devices/device.ts";
import { longestReceived, receiveOffloads } from "../../devices/offloads.ts";
import { proofOf, proveDevice, UnprovedError } from "../../devices/proof.ts";
import type { QueuePair } from "../../engine/pair.ts";
import { type RegionRequest, RegionTable } from "../../memory/regions.ts";
import { type MappedContext, mapContiguous, stillThere } from "../../nic/contexts.ts";
import { errnoName } from "../../os/errors.ts";
import { signalEventFd } from "../../os/eventfd.ts";
import { close, setNonBlocking } from "../../os/fd.ts";
import { drainTx, unsentPackets } from "./drain.ts";
import { writeProgramObject } from "./program-object.ts";
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

export interface BackendOptions {
  readonly device: Device;
  /** Features that may be offered, of those that the device has. */
  readonly features: number;
  readonly pair: QueuePair;
  /** A kick descriptor comes, or goes before it is closed: for the loop to wait on. */
  readonly watchKick: (queue: number, fd: number) => void;
  readonly unwatchKick: (queue: number, fd: number) => void;
  readonly warn: (text: string) => void;
  /** Hand out programs that the verifier refuses, too. */
  readonly allowUnverified?: boolean;
}

/** What a request comes to. A refusal changes nothing. */
export type Reply =
  | { readonly refused: string }
  | {
      readonly payload?: Uint8Array;
      /** Goes along, and is closed here once it is sent. */
      readonly fd?: number;
    };

interface Queue {
  readonly name: string;
  readonly receive: boolean;
  /** As registered; null: none. */
  address: number | null;
  /** null, too, while the memory that it lay in is not there. */
  context: MappedContext | null;
  kickFd: number;
  irqFd: number;
  /** The ring's own position while no ring is attached. */
  position: number;
  enabled: boolean;
}

interface Parameters {
  readonly rxBufs: number;
  readonly txBufs: number;
}

/** The protocol cannot say another one. */
const MTU = 1500;

const DONE: Reply = {};
const NO_EVENTFD: Reply = { refused: "the descriptor cannot be written to: an eventfd is needed" };

const newQueue = (name: string, receive: boolean): Queue => ({
  ...{ name, receive, address: null, context: null, kickFd: -1, irqFd: -1, position: 0 },
  enabled: false,
});

export class ProxyBackend {
  readonly memory: RegionTable;
  readonly queues: readonly Queue[] = [newQueue("RX0", true), newQueue("TX0", false)];
  readonly counters = {
    requests: 0,
    refused: 0,
    /** Packets that the guest had published and that were not sent when transmission was stopped. */
    unsentAtStop: 0,
    /** Times a changed memory table took a registered context away. */
    contextsLost: 0,
  };
  lastRefusal = "";
  selectedFeatures = 0;
  parameters: Parameters | null = null;
  readonly #options: BackendOptions;
  /** By sizes of the queues, of which there are 100. */
  readonly #problems = new Map<string, string | null>();
  #upgradeFd = -1;

  constructor(options: BackendOptions) {
    this.#options = options;
    this.memory = new RegionTable({
      maxRegions: MAX_REGIONS,
      granularity: 1,
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
    const reply = this.#answer(name, payload, fds);
    if ("refused" in reply) this.refuse(`${name}: ${reply.refused}`);
    return reply;
  }

  /** Counts a refusal and keeps its reason for `status`. */
  refuse(reason: string): void {
    this.counters.refused++;
    this.lastRefusal = reason;
  }

  #answer(name: RequestName, payload: DataView, fds: number[]): Reply {
    const { whileRunning, fds: limits } = REQUESTS[name];
    if (!whileRunning && this.running) return { refused: "packets flow: disable both directions" };
    if (limits !== null && (fds.length < limits[0] || fds.length > limits[1])) {
      return { refused: `${fds.length} descriptors: ${limits[0]} to ${limits[1]} belong to it` };
    }
    return HANDLERS[name](this, payload, fds);
  }

  /* The device as a whole */

  getFeatures(): Reply {
    const payload = new Uint8Array(8);
    putU64(new DataView(payload.buffer), 0, this.offeredFeatures);
    return { payload };
  }

  setFeatures(payload: DataView): Reply {
    this.selectedFeatures = this.offeredFeatures & payload.getUint32(0, true);
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
    const { parameters } = this;
    if (parameters?.rxBufs !== rxBufs || parameters.txBufs !== txBufs) {
      for (const queue of this.queues) this.#forgetContext(queue);
    }
    this.parameters = { rxBufs, txBufs };
    const answer = new Uint8Array(8);
    const view = new DataView(answer.buffer);
    view.setUint32(CONTEXT_SIZES.rx, device.contextSize(rxBufs), true);
    view.setUint32(CONTEXT_SIZES.tx, device.contextSize(txBufs), true);
    return { payload: answer };
  }

  /** The programs in version 1 form, as an object file that lives in memory only. */
  getPrograms(): Reply {
    if (this.parameters === null) return { refused: "SET_PARAMETERS comes first" };
    const problem = this.#problemOf(this.parameters);
    if (problem !== null) return { refused: problem };
    return { fd: writeProgramObject(this.#programs(this.parameters)) };
  }

  /**
   * Why the programs for such queues must not be handed out; null: they may. The sizes are the VMM's, so that it cannot
   * be known before; it is found once per size, and packets do not flow then.
   */
  #problemOf(parameters: Parameters): string | null {
    const sizes = `${parameters.rxBufs} ${parameters.txBufs}`;
    let problem = this.#problems.get(sizes);
    if (problem === undefined) {
      const { device, allowUnverified = false, warn } = this.#options;
      try {
        const verdicts = proveDevice(device, { ...parameters, forms: ["v1"] });
        const proof = proofOf(device, verdicts, allowUnverified);
        if (proof !== "proved") warn(`programs ${proof}`);
        problem = null;
      } catch (error) {
        if (!(error instanceof UnprovedError)) throw error;
        problem = error.message;
      }
      this.#problems.set(sizes, problem);
    }
    return problem;
  }

  #programs({ rxBufs, txBufs }: Parameters): (name: ProgramName) => ProgramSet {
    const { device } = this.#options;
    const rx = device.programs({ bufs: rxBufs, form: "v1" });
    const tx = device.programs({ bufs: txBufs, form: "v1" });
    return (name) => (name.startsWith("rx") ? rx : tx);
  }

  /* Memory */

  /** The whole table at once. Rings stand still meanwhile; contexts are looked for in the new one. */
  setMemoryTable(payload: DataView, fds: number[]): Reply {
    const count = payload.getUint32(MEMORY_MAP.count, true);
    if (count > MAX_REGIONS || count !== fds.length) {
      return { refused: `${count} regions with ${fds.length} descriptors: 0 to ${MAX_REGIONS}` };
    }
    for (const queue of this.queues) this.#detachRing(queue);
    const errno = this.memory.replace(regionsOf(payload, count), fds.splice(0));
    for (const queue of this.queues) this.#findContext(queue);
    // No view of the old table is left: contexts were looked up anew, packets are never in flight here.
    this.memory.prune();
    this.#attachRings();
    return errno === 0 ? DONE : { refused: `a region cannot be mapped: ${errnoName(errno)}` };
  }

  #findContext(queue: Queue): void {
    if (queue.address === null) return;
    if (queue.context !== null && stillThere(this.memory, queue.context)) return;
    const had = queue.context !== null;
    queue.context = mapContiguous(this.memory, queue.address, this.#contextSize(queue));
    if (!had || queue.context !== null) return;
    this.counters.contextsLost++;
    this.#options.warn(
      `${queue.name}: its context is not in the new memory table; it stands still`,
    );
  }

  /* Queues */

  #queueAt(payload: DataView, offset: number): Queue | null {
    const index = payload.getUint32(offset, true);
    return this.parameters === null || index >= QUEUES ? null : this.queues[index];
  }

  #bufs(queue: Queue): number {
    const { rxBufs, txBufs } = this.parameters!;
    return queue.receive ? rxBufs : txBufs;
  }

  #contextSize(queue: Queue): number {
    return this.#options.device.contextSize(this.#bufs(queue));
  }

  setQueueContext(payload: DataView): Reply {
    const queue = this.#queueAt(payload, QUEUE_CONTEXT.queue);
    if (queue === null) return { refused: "no such queue, or no SET_PARAMETERS before" };
    const address = getU64(payload, QUEUE_CONTEXT.address);
    if (address === 0) {
      this.#forgetContext(queue);
      return DONE;
    }
    const context = mapContiguous(this.memory, address, this.#contextSize(queue));
    if (context === null) {
      return { refused: `context of ${queue.name} at 0x${address.toString(16)} is not memory` };
    }
    const { device } = this.#options;
    device.initialise(queue.receive ? "rx" : "tx", context.bytes, this.#bufs(queue));
    queue.address = address;
    queue.context = context;
    queue.position = 0;
    return DONE;
  }

  #forgetContext(queue: Queue): void {
    this.#detachRing(queue);
    queue.address = null;
    queue.context = null;
    queue.position = 0;
  }

  setQueueKick(payload: DataView, fds: number[]): Reply {
    const queue = this.#queueAt(payload, NOTIFIER.queue);
    if (queue === null) return { refused: "no such queue, or no SET_PARAMETERS before" };
    const fd = fds[0] ?? -1;
    try {
      if (fd >= 0) {
        setNonBlocking(fd);
        this.#options.watchKick(this.queues.indexOf(queue), fd);
      }
    } catch {
      return { refused: "the descriptor cannot be waited for: an eventfd is needed" };
    }
    this.#dropKick(queue);
    queue.kickFd = fd;
    fds.length = 0;
    return DONE;
  }

  #dropKick(queue: Queue): void {
    if (queue.kickFd < 0) return;
    this.#options.unwatchKick(this.queues.indexOf(queue), queue.kickFd);
    close(queue.kickFd);
    queue.kickFd = -1;
  }

  setQueueIrq(payload: DataView, fds: number[]): Reply {
    const queue = this.#queueAt(payload, NOTIFIER.queue);
    if (queue === null) return { refused: "no such queue, or no SET_PARAMETERS before" };
    if (!canSignal(fds)) return NO_EVENTFD;
    if (queue.irqFd >= 0) close(queue.irqFd);
    queue.irqFd = fds.pop() ?? -1;
    return DONE;
  }

  setUpgrade(fds: number[]): Reply {
    if (!canSignal(fds)) return NO_EVENTFD;
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
    signalEventFd(this.#upgradeFd);
    return true;
  }

  /** Interrupts the guest; the vector is the queue's index. */
  fire(vector: number): void {
    const { irqFd } = this.queues[vector];
    if (irqFd >= 0) signalEventFd(irqFd);
  }

  /* Directions */

  enable(index: number): Reply {
    const missing = this.#missing();
    if (missing !== null) return { refused: missing };
    const queue = this.queues[index];
    if (queue.enabled) return DONE;
    queue.enabled = true;
    this.#attachRing(queue, true);
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
    this.#detachRing(queue);
    return DONE;
  }

  /** The guest reclaims right after the reply: what was published goes out, as far as the port takes it. */
  #drain(queue: Queue): void {
    const { pair } = this.#options;
    if (pair.tx === null) return;
    drainTx(pair, this.#bufs(queue));
    this.counters.unsentAtStop += unsentPackets(pair.tx, this.#bufs(queue));
  }

  #attachRings(): void {
    for (const queue of this.queues) if (queue.enabled) this.#attachRing(queue);
  }

  /** @param fresh the guest has just enabled the direction, and may have reclaimed before */
  #attachRing(queue: Queue, fresh = false): void {
    if (queue.context === null) return;
    const { pair, device } = this.#options;
    const config = {
      context: queue.context.bytes,
      memory: this.memory,
      bufs: this.#bufs(queue),
      counters: queue.receive ? pair.rxCounters : pair.txCounters,
      features: this.selectedFeatures,
      maxPacket: longestReceived(this.selectedFeatures, MTU),
    };
    // What was negotiated, not what the command line allows, decides what the port may bring.
    if (queue.receive) pair.setReceiveOffloads(receiveOffloads(this.selectedFeatures));
    const ring = queue.receive ? device.rx(config) : device.tx(config);
    if (fresh) ring.resync();
    else ring.restore(queue.position);
    // Awake, the loop looks at rings anyway; where it never sleeps, no kick is ever wanted.
    ring.disableKicks();
    if (queue.receive) {
      pair.rx = ring as RxHalf;
      pair.rxStarved = false;
    } else {
      pair.tx = ring as TxHalf;
      pair.portWritable();
    }
  }

  #detachRing(queue: Queue): void {
    const { pair } = this.#options;
    const ring = queue.receive ? pair.rx : pair.tx;
    if (ring === null) return;
    queue.position = ring.save();
    if (queue.receive) pair.rx = null;
    else pair.tx = null;
  }

  /** The end of a connection: what is published is sent, then everything of it is forgotten. */
  release(): void {
    this.disable(RX_QUEUE);
    this.disable(TX_QUEUE);
    for (const queue of this.queues) {
      this.#forgetContext(queue);
      this.#dropKick(queue);
      if (queue.irqFd >= 0) close(queue.irqFd);
      queue.irqFd = -1;
    }
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

/** Makes sure that signalling never waits for a reader who does not read. */
function canSignal(fds: readonly number[]): boolean {
  try {
    for (const fd of fds) setNonBlocking(fd);
    return true;
  } catch {
    return false;
  }
}

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
