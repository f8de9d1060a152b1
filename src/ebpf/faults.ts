/** Errors that end a run early, with the same text in every runner. */

import { EbpfError } from "./errors.ts";
import type { MappedRegion, Memory } from "./memory.ts";
import { MAX_FRAMES } from "./runner.ts";

const hex = (n: number): string => `0x${n.toString(16)}`;

/** An access outside of every region. */
export function outside(
  memory: Memory,
  what: "load" | "store",
  address: number,
  size: number,
  index: number,
): EbpfError {
  const regions = memory.regions.map((r) => `${r.name} ${hex(r.start)}..${hex(r.end)}`).join(", ");
  const message = `${what} of ${size} bytes at ${hex(address)} is outside ${regions}`;
  return new EbpfError("MEMORY", message, index);
}

export function readOnly(region: MappedRegion, index: number): EbpfError {
  return new EbpfError("MEMORY", `store to ${region.name}, which is read-only`, index);
}

export function misaligned(size: number, index: number): EbpfError {
  return new EbpfError("MEMORY", `atomic of ${size} bytes at a misaligned address`, index);
}

export function noHelper(number: number, index: number): EbpfError {
  return new EbpfError("HELPER", `there is no helper ${number} (${hex(number)})`, index);
}

export function tooLong(limit: number, index: number): EbpfError {
  return new EbpfError("LIMIT", `still running after ${limit} instructions`, index);
}

export function tooDeep(index: number): EbpfError {
  return new EbpfError("LIMIT", `calls nest deeper than ${MAX_FRAMES} functions`, index);
}
