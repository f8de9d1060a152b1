/**
 * The programs that a NIC ships: compiled and proved in the main thread, before clients are
 * accepted, or taken from the cache of those that were.
 */
import type { RingFormat } from "../devices/format.ts";
import type { ProgramSets } from "../devices/program-set.ts";
import { failure } from "../errors.ts";
import type { NicOptions } from "./handle.ts";
import { readSets, setKey, writeSets } from "./set-cache.ts";

export interface ProvedPrograms {
  readonly sets: ProgramSets;
  /** What `status` says of them. */
  readonly proof: string;
}

/** What `proofOf` says if all are. */
const PROVED = "proved";

/** @throws CommandError if they must not be shipped */
export async function provedPrograms(
  format: RingFormat,
  { nic }: Pick<NicOptions, "nic">,
  allowUnverified: boolean,
): Promise<ProvedPrograms> {
  const key = setKey(format.name, nic);
  const kept = key === undefined ? undefined : readSets(key);
  if (kept !== undefined) return { sets: kept, proof: PROVED };
  // Compiler and verifier are loaded, and run, while the worker comes up.
  const [{ proofOf, proveInTurns, UnprovedError }, { forgetChanged, programSets }] =
    await Promise.all([import("../devices/proof.ts"), import("../devices/program-set.ts")]);
  // Another set may have been made of the same files before they were edited.
  forgetChanged();
  try {
    const proof = proofOf(format, await proveInTurns(format, nic), allowUnverified);
    const sets = programSets(format, nic);
    if (key !== undefined && proof === PROVED) writeSets(key, sets);
    return { sets, proof };
  } catch (error) {
    throw error instanceof UnprovedError ? failure(error.message) : error;
  }
}
