/** The program set: ids, names, the direction of each program, and the helpers of ABI version 1. */

export const PROGRAM_IDS = {
  rxp: 1,
  rxc: 2,
  rxi: 3,
  rxr: 4,
  rxh: 5,
  txp: 6,
  txc: 7,
  txi: 8,
  txr: 9,
  txh: 10,
} as const;

export type ProgramName = keyof typeof PROGRAM_IDS;
export type ProgramId = (typeof PROGRAM_IDS)[ProgramName];

export const PROGRAM_NAMES = Object.keys(PROGRAM_IDS) as ProgramName[];
export const OPTIONAL_PROGRAMS: readonly ProgramName[] = ["rxh", "txh"];
/** Largest valid id. PROG_SELECT ignores larger ones. */
export const MAX_PROGRAM_ID = 10;

/** eBPF instructions (8 bytes each) that the program window holds. */
export const MAX_INSTRUCTIONS = 16384;

/**
 * `v1`: programs of ABI version 1, which call the driver's helpers.
 * `helperfree`: programs without helper calls, with each index bounded by a constant: the guest
 * kernel's verifier accepts them.
 */
export type ProgramForm = "v1" | "helperfree";

/** Raw eBPF code (a multiple of 8 bytes) by program id. */
export interface ProgramSet {
  readonly form: ProgramForm;
  readonly code: ReadonlyMap<ProgramId, Uint8Array>;
}

/** Helper numbers of version 1 programs: the immediate of a call instruction. */
export const HELPERS = {
  rx_pkt_alloc: 0x4b8f0000,
  pkt_l4_csum_md_get: 0x4b8f0001,
  pkt_l4_csum_md_set: 0x4b8f0002,
  pkt_virtio_net_md_get: 0x4b8f0003,
  pkt_virtio_net_md_set: 0x4b8f0004,
  rx_buf_dma_map: 0x4b8f0005,
  rx_buf_dma_unmap: 0x4b8f0006,
  tx_buf_dma_map: 0x4b8f0007,
  tx_buf_dma_unmap: 0x4b8f0008,
  smp_mb_full: 0x4b8f0009,
  print_num: 0x4b8f000a,
} as const;

export type HelperName = keyof typeof HELPERS;

/** @returns the reason why a set cannot be shipped, or null if it can */
export function programSetProblem(set: ProgramSet): string | null {
  for (const name of PROGRAM_NAMES) {
    const code = set.code.get(PROGRAM_IDS[name]);
    if (code === undefined) {
      if (OPTIONAL_PROGRAMS.includes(name)) continue;
      return `program ${name} is missing`;
    }
    if (code.length === 0 || code.length % 8 !== 0) {
      return `program ${name} is ${code.length} bytes long: not a multiple of 8`;
    }
    if (code.length / 8 > MAX_INSTRUCTIONS) {
      return `program ${name} has ${code.length / 8} instructions: the limit is ${MAX_INSTRUCTIONS}`;
    }
  }
  return null;
}
