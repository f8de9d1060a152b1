/** Arguments and results of the helpers of version 1 (a table, which `call.ts` applies). */
import { VNET_HDR } from "../../abi/context.ts";
import type { HelperName, ProgramName } from "../../abi/programs.ts";

export type Argument =
  /** The queue's context, unmodified. */
  | { readonly kind: "context" }
  | { readonly kind: "number" }
  /** `size` bytes that the helper reads, which must be initialised. */
  | { readonly kind: "in"; readonly size: number }
  /** `size` bytes that the helper writes if its result is `writesOn`, or always. */
  | { readonly kind: "out"; readonly size: number; readonly writesOn?: number }
  /** A string on the stack with its NUL. */
  | { readonly kind: "string" };

export interface Signature {
  readonly programs: readonly ProgramName[] | "any";
  readonly args: readonly Argument[];
  /** Ranges of the low half of R0, as signed 32 bits. Each range is explored separately. */
  readonly results: readonly (readonly [number, number])[];
  /** Why no call of it is provable, with any arguments. */
  readonly unprovable?: string;
}

const context: Argument = { kind: "context" };
const number: Argument = { kind: "number" };
const input = (size: number): Argument => ({ kind: "in", size });
const output = (size: number, writesOn?: number): Argument =>
  writesOn === undefined ? { kind: "out", size } : { kind: "out", size, writesOn };

/** Kernels return errors down to -4095. */
const ERRORS = [-4095, 0] as const;
const ZERO = [[0, 0]] as const;
const RX = ["rxp", "rxc", "rxi", "rxr", "rxh"] as const;
const TX = ["txp", "txc", "txi", "txr", "txh"] as const;
const MAPS =
  "it maps whatever address the program passes, and the context, where addresses come from, is shared";

/** Source of the table: the ABI, "Helpers"; results are C `int`. */
export const HELPER_SIGNATURES: Readonly<Record<HelperName, Signature>> = {
  rx_pkt_alloc: { programs: ["rxc"], args: [context], results: [ERRORS] },
  pkt_l4_csum_md_get: {
    programs: ["txp", "txh"],
    args: [context, output(2, 1), output(2, 1)],
    results: [
      [0, 0],
      [1, 1],
    ],
  },
  pkt_l4_csum_md_set: { programs: ["rxc", "rxh"], args: [context, number, number], results: ZERO },
  pkt_virtio_net_md_get: {
    programs: ["txp", "txh"],
    args: [context, output(VNET_HDR.size)],
    results: [[0, 1]],
  },
  pkt_virtio_net_md_set: {
    programs: ["rxc", "rxh"],
    args: [context, input(VNET_HDR.size)],
    results: ZERO,
  },
  rx_buf_dma_map: {
    programs: RX,
    args: [context, number, number, output(8)],
    results: [ERRORS],
    unprovable: MAPS,
  },
  rx_buf_dma_unmap: {
    programs: RX,
    args: [context, number, number, number],
    results: ZERO,
    unprovable: MAPS,
  },
  tx_buf_dma_map: {
    programs: TX,
    args: [context, number, number, output(8)],
    results: [ERRORS],
    unprovable: MAPS,
  },
  tx_buf_dma_unmap: {
    programs: TX,
    args: [context, number, number, number],
    results: ZERO,
    unprovable: MAPS,
  },
  smp_mb_full: { programs: "any", args: [], results: ZERO },
  print_num: { programs: "any", args: [{ kind: "string" }, number], results: ZERO },
};

/**
 * Largest result (low half of R0, signed) of each program; 0 is
 * success or "none", 1 "one", negative an error.
 */
export const LARGEST_RESULT: Readonly<Partial<Record<ProgramName, number>>> = {
  ...{ rxp: 0, rxc: 1, rxi: 1, rxr: 1, txp: 0, txc: 1, txi: 1, txr: 1 },
};
