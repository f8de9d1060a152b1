/** A ring of the driver with the guest memory that it lies in, as it is registered. */
import { CONTEXT_PAGE, type ProgramSet, REG } from "../abi/index.ts";
import type { LocalMemory } from "./memory.ts";
import type { Registers } from "./registers.ts";
import { GuestRing } from "./ring.ts";

export interface Registration {
  readonly ring: GuestRing;
  readonly context: Uint8Array;
  /** Address of the page list (HELPERFREE) or of the context. */
  readonly address: number;
  readonly place: RingPlace;
}

/** Guest memory of one ring. */
interface RingPlace {
  readonly pages: readonly number[];
  /** All of the pages, as the driver sees them. */
  readonly context: Uint8Array;
  readonly buffers: number;
  readonly bufferBytes: number;
  /** Of the page list; 0: none. */
  readonly list: number;
}

export interface RingChoice {
  readonly direction: "rx" | "tx";
  readonly programs: ProgramSet;
  readonly generation: number;
  readonly bufferSize: number;
}

export class RingPlaces {
  readonly #registers: Registers;
  readonly #memory: LocalMemory;
  readonly #pageLists: boolean;
  /** Of rings that are gone. */
  readonly #free: RingPlace[] = [];

  /** @param pageLists contexts are scattered (ability CTX_PAGES) */
  constructor(registers: Registers, memory: LocalMemory, pageLists: boolean) {
    this.#registers = registers;
    this.#memory = memory;
    this.#pageLists = pageLists;
  }

  /** Makes a ring of the sizes that the registers show. */
  make({ direction, programs, generation, bufferSize }: RingChoice): Registration {
    const rx = direction === "rx";
    const bufs = this.#registers.read(rx ? REG.NUM_RX_BUFS : REG.NUM_TX_BUFS);
    const size = this.#registers.read(rx ? REG.RX_CTX_SIZE : REG.TX_CTX_SIZE);
    const place = this.#place(Math.ceil(size / CONTEXT_PAGE), bufs * bufferSize);
    const context = place.context.subarray(0, size);
    const { linear: memory } = this.#memory;
    const options = { programs, direction, bufs, bufferSize, buffers: place.buffers } as const;
    const ring = new GuestRing({ ...options, context, memory, generation });
    return { ring, context, address: place.list === 0 ? place.pages[0] : place.list, place };
  }

  #place(count: number, bufferBytes: number): RingPlace {
    const fits = (place: RingPlace): boolean =>
      place.pages.length === count && place.bufferBytes === bufferBytes;
    const free = this.#free.findIndex(fits);
    if (free >= 0) return this.#free.splice(free, 1)[0];
    const first = this.#memory.allocate(count * CONTEXT_PAGE, CONTEXT_PAGE);
    const buffers = this.#memory.allocate(bufferBytes, CONTEXT_PAGE);
    // Descending, so that tests find code that takes pages for contiguous. Version 1 has no page
    // list and needs contiguous pages.
    const pages = Array.from({ length: count }, (_, i) => first + i * CONTEXT_PAGE);
    if (this.#pageLists) pages.reverse();
    const context = this.#memory.mapContext(pages, count * CONTEXT_PAGE);
    const list = this.#pageLists ? this.#listOf(pages) : 0;
    return { pages, context, buffers, bufferBytes, list };
  }

  #listOf(pages: readonly number[]): number {
    const list = new Uint32Array(pages.flatMap((page) => [page, page / 2 ** 32]));
    const address = this.#memory.allocate(list.byteLength);
    this.#memory.bytes(address, list.byteLength).set(new Uint8Array(list.buffer));
    return address;
  }

  /** Registers a ring for a queue, in the set that the registers show. */
  register(queue: number, { ring, context, address }: Registration): void {
    ring.reset();
    context.fill(0);
    this.#registers.write(REG.QUEUE_SELECT, queue);
    this.#registers.writeAddress(this.#pageLists ? REG.PAGES_LO : REG.CTX_PADDR_LO, address);
  }

  /** The NIC touches the ring's memory no more: another ring may have it. */
  release({ place }: Registration): void {
    this.#free.push(place);
  }
}
