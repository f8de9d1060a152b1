/**
 * The programs that a NIC ships: compiled and proved in the main thread, before clients are
 * accepted.
 */
import type { RingFormat } from "../devices/format.ts";
import type { ProgramSets } from "../devices/program-set.ts";
import { failure } from "../errors.ts";
import type { NicOptions } from "./handle.ts";

export interface ProvedPrograms {
  readonly sets: ProgramSets;
  /** What `status` says of them. */
  readonly proof: string;
}

/** @throws CommandError if they must not be shipped */
export async function provedPrograms(
  format: RingFormat,
  { nic }: NicOptions,
  allowUnverified: boolean,
): Promise<ProvedPrograms> {
  // Compiler and verifier are loaded, and run, while the worker comes up.
  const [{ proofOf, proveInTurns, UnprovedError }, { programSets }] = await Promise.all([
    import("../devices/proof.ts"),
    import("../devices/program-set.ts"),
  ]);
  try {
    const proof = proofOf(format, await proveInTurns(format, nic), allowUnverified);
    return { sets: programSets(format, nic), proof };
  } catch (error) {
    throw error instanceof UnprovedError ? failure(error.message) : error;
  }
}
