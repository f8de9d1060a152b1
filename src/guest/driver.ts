/**
 * A guest driver in user space. It does what the kernel module does, over memory
 * shared with this or another process. Tests of devices and engine use it, and
 * the demo that needs no virtual machine.
 *
 * Programs are compiled to WebAssembly, so contexts are in a WebAssembly memory.
 */
import {
  ABI_VERSION,
  ABILITY,
  BAR_DOORBELLS,
  BAR_PROGRAM,
  BAR_REGISTERS,
  CONTEXT_PAGE,
  CTRL,
  EXT_ID_VALUE,
  FEATURES,
  MAX_BUFS,
  MAX_PROGRAM_ID,
  type ProgramForm,
  type ProgramId,
  type ProgramSet,
  parseBlob,
  programSetProblem,
  REG,
  STATUS,
} from "../abi/index.ts";
import type { LocalMemory } from "./memory.ts";
import { GuestError, GuestRing } from "./ring.ts";

/**
 * Aligned 32-bit accesses to the NIC's BARs. A write has taken effect when a later read returns.
 */
export interface NicTransport {
  read(bar: number, offset: number): number;
  write(bar: number, offset: number, value: number): void;
}

export interface GuestDriverOptions {
  /** `v1`: behaves like an original driver, which does not use the extension. */
  readonly form?: ProgramForm;
  /** Bytes of each buffer. */
  readonly bufferSize?: number;
  /** Feature bits to select from the offer; default: none. */
  readonly features?: number;
}

interface Registration {
  readonly ring: GuestRing;
  readonly context: Uint8Array;
  /** Address of the page list (HELPERFREE) or of the context. */
  readonly address: number;
}

export class GuestDriver {
  readonly pairs: number;
  readonly generation: number;
  readonly programs: ProgramSet;
  /** Negotiated feature bits. */
  readonly features: number;
  readonly mac: Uint8Array;
  readonly rx: readonly GuestRing[];
  readonly tx: readonly GuestRing[];
  readonly counters = { sent: 0, received: 0, kicks: 0, interrupts: 0, busy: 0 };
  readonly #transport: NicTransport;
  readonly #memory: LocalMemory;
  readonly #registrations: Registration[];
  readonly #stride: number;
  readonly #pages: boolean;

  /** Probes the NIC and fetches its programs. @throws GuestError if the NIC is unsupported */
  constructor(transport: NicTransport, memory: LocalMemory, options: GuestDriverOptions = {}) {
    this.#transport = transport;
    this.#memory = memory;
    const form = options.form ?? "helperfree";
    const version = this.#read(REG.VERSION);
    if (version !== ABI_VERSION)
      throw new GuestError(`ABI version ${version}: unsupported, this driver needs ${ABI_VERSION}`);
    this.#pages = form === "helperfree";
    if (form === "helperfree") this.#acknowledge();
    this.pairs = this.#read(REG.NUM_RX_QUEUES);
    this.#stride = this.#read(REG.DOORBELL_SIZE);
    this.mac = this.#readMac();
    this.features = this.#read(REG.FEATURES) & (options.features ?? 0);
    this.#write(REG.FEATURES, this.features);
    this.generation = this.#read(REG.SET_CUR);
    this.programs = form === "helperfree" ? this.#fetchBlob() : this.#fetchWindow();
    const size = options.bufferSize ?? 2048;
    this.#registrations = Array.from({ length: 2 * this.pairs }, (_, q) => this.#makeRing(q, size));
    const rings = this.#registrations.map((r) => r.ring);
    this.rx = rings.slice(0, this.pairs);
    this.tx = rings.slice(this.pairs);
  }

  /** Registers contexts, publishes receive buffers and enables both directions. */
  open(): void {
    this.register();
    this.reopen();
  }

  /** Registers all contexts, which the host then initialises. */
  register(): void {
    for (let q = 0; q < 2 * this.pairs; q++) this.#register(q);
  }

  /** Publishes receive buffers on registered contexts and enables both directions. */
  reopen(): void {
    for (let q = 0; q < this.pairs; q++) this.refill(q);
    this.enable();
  }

  enable(): void {
    this.#write(REG.CTRL, CTRL.RX_ENABLE | CTRL.TX_ENABLE);
    const both = STATUS.RX_ENABLED | STATUS.TX_ENABLED;
    if ((this.status & both) !== both)
      throw new GuestError("the device cannot be enabled: STATUS does not show both directions");
  }

  get status(): number {
    return this.#read(REG.STATUS);
  }

  /** Disables the device and reclaims everything outstanding. @returns unused buffers */
  close(): { tx: number; rx: number } {
    this.disable();
    const back = { tx: 0, rx: 0 };
    for (let q = 0; q < this.pairs; q++) {
      while (this.tx[q].collect(() => {}) > 0);
      while (this.rx[q].collect(() => {}) > 0);
      back.tx += this.tx[q].reclaim();
      back.rx += this.rx[q].reclaim();
    }
    return back;
  }

  disable(): void {
    this.#write(REG.CTRL, CTRL.RX_DISABLE | CTRL.TX_DISABLE);
    void this.status;
  }

  /**
   * Sends one frame, in as many buffers as it needs; `metadata` is a virtio_net_hdr of 10 bytes.
   * @returns false if the ring is full, even after reclaiming completions
   */
  send(queue: number, frame: Uint8Array, metadata: Uint8Array | null = null): boolean {
    const ring = this.tx[queue];
    const { bufferSize } = ring;
    const count = Math.max(1, Math.ceil(frame.length / bufferSize));
    if (count > 1 && !(this.features & FEATURES.SG))
      throw new GuestError(
        "the NIC does not offer scatter-gather (SG): a frame must fit one buffer",
      );
    if (ring.free < count) this.clean(queue);
    if (ring.free < count) {
      this.counters.busy++;
      return false;
    }
    for (let i = 0; i < count; i++) {
      const part = frame.subarray(i * bufferSize, (i + 1) * bufferSize);
      const address = ring.addressOf(ring.nextId(i));
      this.#memory.bytes(address, bufferSize).set(part);
    }
    ring.publish(count, bufferSize, frame.length - (count - 1) * bufferSize, metadata);
    this.counters.sent++;
    this.#kick(this.pairs + queue, ring);
    return true;
  }

  /** Reclaims transmit completions. @returns packets */
  clean(queue: number): number {
    let packets = 0;
    while (this.tx[queue].collect(() => {}) > 0) packets++;
    return packets;
  }

  /**
   * Passes up to `max` received frames with their metadata to `take`, then refills the ring.
   * Both are valid only during the call. A frame in several buffers is joined.
   */
  receive(
    queue: number,
    take: (frame: Uint8Array, metadata: Uint8Array) => void,
    max = Number.POSITIVE_INFINITY,
  ): number {
    const ring = this.rx[queue];
    let packets = 0;
    const parts: Uint8Array[] = [];
    const collect = (id: number, length: number) => {
      if (length > ring.bufferSize) throw new GuestError(`a frame of ${length} bytes`);
      if (length > 0) parts.push(this.#memory.bytes(ring.addressOf(id), length));
    };
    for (; packets < max && ring.collect(collect) > 0; packets++) {
      if (parts.length === 1) take(parts[0], ring.metadata);
      else if (parts.length > 1) take(Buffer.concat(parts), ring.metadata);
      parts.length = 0;
    }
    this.counters.received += packets;
    this.refill(queue);
    return packets;
  }

  /** Publishes all free receive buffers. */
  refill(queue: number): void {
    const ring = this.rx[queue];
    while (ring.free > 0) ring.publish(Math.min(ring.free, MAX_BUFS), ring.bufferSize);
    this.#kick(queue, ring);
  }

  /** Replaces an MSI-X vector. */
  interrupt(_vector: number): void {
    this.counters.interrupts++;
  }

  #kick(queue: number, ring: GuestRing): void {
    if (!ring.kickNeeded) return;
    ring.kickNeeded = false;
    this.counters.kicks++;
    this.#transport.write(BAR_DOORBELLS, queue * this.#stride, 0);
  }

  #read(register: number): number {
    return this.#transport.read(BAR_REGISTERS, register);
  }

  #write(register: number, value: number): void {
    this.#transport.write(BAR_REGISTERS, register, value >>> 0);
  }

  #writeAddress(low: number, address: number): void {
    this.#write(low, address % 2 ** 32);
    this.#write(low + 4, Math.floor(address / 2 ** 32));
    // The write may be posted: it has taken effect when a later read returns.
    void this.status;
  }

  #acknowledge(): void {
    if (this.#read(REG.EXT_ID) !== EXT_ID_VALUE)
      throw new GuestError("the NIC does not offer extension 1 of the ABI");
    const wanted = ABILITY.BLOB | ABILITY.HELPERFREE | ABILITY.CTX_PAGES | ABILITY.QUEUE_PAIRS;
    this.#write(REG.EXT_ACK, wanted | ABILITY.EVENT);
    if ((this.#read(REG.EXT_ACK) & wanted) !== wanted) {
      throw new GuestError("the NIC offers no verifiable programs (ability HELPERFREE)");
    }
  }

  #readMac(): Uint8Array {
    const mac = new Uint8Array(6);
    const view = new DataView(mac.buffer);
    view.setUint16(0, this.#read(REG.MAC_HI));
    view.setUint32(2, this.#read(REG.MAC_LO));
    return mac;
  }

  #fetchBlob(): ProgramSet {
    const length = this.#read(REG.BLOB_LEN);
    const address = this.#memory.allocate(length);
    this.#writeAddress(REG.BLOB_LO, address);
    const code = parseBlob(this.#memory.bytes(address, length).slice());
    if (code === undefined) throw new GuestError("program blob: wrong length, bounds or SHA-256");
    return checked({ form: "helperfree", code });
  }

  #fetchWindow(): ProgramSet {
    const code = new Map<ProgramId, Uint8Array>();
    for (let id = 1; id <= MAX_PROGRAM_ID; id++) {
      this.#write(REG.PROG_SELECT, id);
      const words = this.#read(REG.PROG_SIZE) * 2;
      if (words === 0) continue;
      const program = Uint32Array.from({ length: words }, (_, i) =>
        this.#transport.read(BAR_PROGRAM, 4 * i),
      );
      code.set(id as ProgramId, new Uint8Array(program.buffer));
    }
    return checked({ form: "v1", code });
  }

  #makeRing(queue: number, bufferSize: number): Registration {
    const direction = queue < this.pairs ? "rx" : "tx";
    const rx = direction === "rx";
    const bufs = this.#read(rx ? REG.NUM_RX_BUFS : REG.NUM_TX_BUFS);
    const size = this.#read(rx ? REG.RX_CTX_SIZE : REG.TX_CTX_SIZE);
    const count = Math.ceil(size / CONTEXT_PAGE);
    const first = this.#memory.allocate(count * CONTEXT_PAGE, CONTEXT_PAGE);
    const buffers = this.#memory.allocate(bufs * bufferSize, 4096);
    const options = { programs: this.programs, direction, bufs, bufferSize, buffers } as const;
    // Descending, so that tests find code that takes pages for contiguous. Version 1 has no page
    // list and needs contiguous pages.
    const pages = Array.from({ length: count }, (_, i) => first + i * CONTEXT_PAGE);
    if (this.#pages) pages.reverse();
    const context = this.#memory.mapContext(pages, size);
    const ring = new GuestRing({ ...options, context, memory: this.#memory.linear });
    if (!this.#pages) return { ring, context, address: first };
    const address = this.#memory.allocate(count * 8);
    const list = new Uint32Array(pages.flatMap((page) => [page, page / 2 ** 32]));
    this.#memory.bytes(address, count * 8).set(new Uint8Array(list.buffer));
    return { ring, context, address };
  }

  #register(queue: number): void {
    const { ring, context, address } = this.#registrations[queue];
    ring.reset();
    context.fill(0);
    this.#write(REG.QUEUE_SELECT, queue);
    this.#writeAddress(this.#pages ? REG.PAGES_LO : REG.CTX_PADDR_LO, address);
  }

  /**
   * Returns the context of a queue (receive queues first), for tests that inspect or corrupt it.
   */
  contextOf(queue: number): Uint8Array {
    return this.#registrations[queue].context;
  }
}

function checked(set: ProgramSet): ProgramSet {
  const problem = programSetProblem(set);
  if (problem !== null) throw new GuestError(problem);
  return set;
}
