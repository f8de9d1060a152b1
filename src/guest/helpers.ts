/**
 * The helpers of ABI version 1 that a driver without DMA needs. Programs pass addresses: this
 * project's point to a header in the context, the original's to one on the stack. Any other address
 * ends the program with an error.
 */
import { HELPERS, type HelperName, type ProgramName, VNET_HDR } from "../abi/index.ts";
import type { Helper, HelperMemory } from "../ebpf/index.ts";
import { NEEDS_CSUM } from "../memory/metadata.ts";
import { GuestError } from "./errors.ts";

export interface HelperOptions {
  /** For messages. */
  readonly program: ProgramName;
  /** The program's address of the context. */
  readonly context: number;
  /** The virtio_net_hdr of the current packet. */
  readonly metadata: Uint8Array;
  /** The program's memory, which exists once the program is loaded. */
  readonly memory: () => HelperMemory;
  readonly fullBarrier: () => void;
}

class Helpers {
  readonly #options: HelperOptions;
  readonly #context: bigint;
  readonly #u16 = new Uint8Array(2);

  constructor(options: HelperOptions) {
    this.#options = options;
    this.#context = BigInt(options.context);
  }

  readonly table: Readonly<Partial<Record<HelperName, Helper>>> = {
    smp_mb_full: () => {
      this.#options.fullBarrier();
      return 0n;
    },
    rx_pkt_alloc: () => 0n,
    print_num: () => 0n,
    pkt_virtio_net_md_get: (context, header) => {
      this.#checkContext("pkt_virtio_net_md_get", context);
      const { metadata } = this.#options;
      this.#give("pkt_virtio_net_md_get", header, metadata);
      return BigInt(metadata[0] & NEEDS_CSUM);
    },
    pkt_virtio_net_md_set: (context, header) => {
      this.#checkContext("pkt_virtio_net_md_set", context);
      const { memory, metadata } = this.#options;
      if (!memory().load(header, metadata)) throw this.#outside("pkt_virtio_net_md_set", header);
      return 0n;
    },
    pkt_l4_csum_md_get: (context, start, offset) => {
      this.#checkContext("pkt_l4_csum_md_get", context);
      const { metadata } = this.#options;
      if ((metadata[0] & NEEDS_CSUM) === 0) return 0n;
      this.#give("pkt_l4_csum_md_get", start, this.#field(VNET_HDR.csum_start.offset));
      this.#give("pkt_l4_csum_md_get", offset, this.#field(VNET_HDR.csum_offset.offset));
      return 1n;
    },
    pkt_l4_csum_md_set: (context, start, offset) => {
      this.#checkContext("pkt_l4_csum_md_set", context);
      const { metadata } = this.#options;
      metadata[0] |= NEEDS_CSUM;
      this.#setField(VNET_HDR.csum_start.offset, start);
      this.#setField(VNET_HDR.csum_offset.offset, offset);
      return 0n;
    },
  };

  #field(at: number): Uint8Array {
    const { metadata } = this.#options;
    this.#u16[0] = metadata[at];
    this.#u16[1] = metadata[at + 1];
    return this.#u16;
  }

  /** Arguments are u16: the upper bits of the register are undefined. */
  #setField(at: number, value: bigint): void {
    const { metadata } = this.#options;
    const low = Number(BigInt.asUintN(16, value));
    metadata[at] = low & 0xff;
    metadata[at + 1] = low >> 8;
  }

  #give(helper: HelperName, address: bigint, bytes: Uint8Array): void {
    if (!this.#options.memory().store(address, bytes)) throw this.#outside(helper, address);
  }

  #checkContext(helper: HelperName, context: bigint): void {
    if (context === this.#context) return;
    const given = `0x${context.toString(16)}`;
    throw new GuestError(
      `program ${this.#options.program} calls ${helper} with ${given}, which is not its context`,
    );
  }

  #outside(helper: HelperName, address: bigint): GuestError {
    const given = `0x${address.toString(16)}`;
    const { program } = this.#options;
    return new GuestError(
      `program ${program} passes ${given} to ${helper}: neither its stack nor its context`,
    );
  }
}

/** Returns the helpers by number, for the runner of the program. */
export function helpersOf(options: HelperOptions): Map<number, Helper> {
  const { table } = new Helpers(options);
  return new Map(
    Object.entries(table).map(([name, helper]) => [HELPERS[name as HelperName], helper]),
  );
}
