/** Starts the replacement of a NIC's set, in the way that its guest's driver can follow. */
import { ABILITY } from "../abi/index.ts";
import type { ProgramSets } from "../devices/program-set.ts";
import { Generation, type GenerationOptions } from "./generation.ts";
import type { Nic } from "./nic.ts";

export interface ReplaceOptions {
  readonly set: Omit<GenerationOptions, "id">;
  /** Its programs, which are proved. */
  readonly programs: ProgramSets;
  /** How long the guest's driver may take before the set is withdrawn. */
  readonly limitMs: number;
  /**
   * A driver that cannot take a set while packets flow is asked to close its interface and to open
   * it again, which loses packets.
   */
  readonly mayLose: boolean;
}

/** @throws Error with what to do; then nothing has changed */
export function startReplacement(nic: Nic, options: ReplaceOptions): void {
  const { upgrade, wanted } = nic;
  if (upgrade.phase !== "idle") {
    throw new Error(`set ${wanted?.id} is being taken by the guest: wait until that is over`);
  }
  const next = new Generation({ ...options.set, id: upgrade.nextId });
  next.ship(options.programs);
  if (!nic.setRead) return upgrade.take(next);
  if ((nic.state.abilities & ABILITY.OVERLAP) === 0) {
    if (options.mayLose) return upgrade.ask(next, options.limitMs);
    throw new Error("the guest's driver cannot replace programs while packets flow (OVERLAP)");
  }
  if (!nic.rxEnabled || !nic.txEnabled) {
    throw new Error("the guest's interface is down: set it up there, then try again");
  }
  upgrade.stage(next, options.limitMs);
}
