/** What the driver agrees to: abilities, features, and its verdict on the programs. */
import { ABILITY, PROGRAM_NAMES, VERDICT } from "../abi/index.ts";
import type { Nic } from "./nic.ts";

/** Abilities beyond version 1. OVERLAP is not offered yet. */
export const OFFERED_ABILITIES =
  ABILITY.BLOB |
  ABILITY.EVENT |
  ABILITY.GEOMETRY |
  ABILITY.HELPERFREE |
  ABILITY.CTX_PAGES |
  ABILITY.QUEUE_PAIRS;

export function has(nic: Nic, ability: number): boolean {
  return (nic.state.abilities & ability) !== 0;
}

/** Abilities change what programs and contexts are, so they are fixed while packets flow. */
export function acknowledge(nic: Nic, abilities: number): void {
  if ((abilities & ~OFFERED_ABILITIES) !== 0 || nic.enabled) {
    const what = `abilities 0x${abilities.toString(16)}`;
    return nic.refusals.add("register", `${what} were not offered, or the NIC is enabled`);
  }
  nic.state.abilities = abilities;
  if (abilities !== 0) driverFound(nic);
}

/** A selection is refused as a whole if a bit was not offered, or while packets flow. */
export function selectFeatures(nic: Nic, features: number): void {
  if ((features & ~nic.running.features) !== 0) {
    nic.refusals.add("features", `features 0x${features.toString(16)} were not offered`);
  } else if (nic.enabled) {
    nic.refusals.add("features", "features changed while the NIC is enabled");
  } else {
    nic.state.selectedFeatures = features;
    nic.state.featuresNegotiated = true;
    driverFound(nic);
  }
}

function driverFound(nic: Nic): void {
  if (nic.step === "guest attached") nic.step = "driver found the device";
}

const VERDICT_REASONS: Record<number, string> = {
  [VERDICT.REFUSED]: "refused a program",
  [VERDICT.MEMORY]: "ran out of memory",
  [VERDICT.FEATURE]: "lacks a feature that it needs",
  [VERDICT.ABORT]: "gave up",
};

/** In VERDICT_INFO: only the guest's kernel knows which instruction it refused. */
const UNKNOWN_INSTRUCTION = 0xffffff;

export function takeVerdict(nic: Nic, verdict: number): void {
  const code = verdict & 0xff;
  if (code === VERDICT.READY) return;
  const reason = VERDICT_REASONS[code];
  if (reason === undefined) {
    return nic.refusals.add("register", `verdict ${verdict} has an unknown code`);
  }
  const { verdictInfo } = nic.state;
  const program = PROGRAM_NAMES[(verdictInfo >>> 24) - 1] ?? `${verdictInfo >>> 24}`;
  const index = verdictInfo & UNKNOWN_INSTRUCTION;
  const where = index === UNKNOWN_INSTRUCTION ? "" : `, instruction ${index}`;
  nic.refusals.add("enable", `the guest ${reason} (program ${program}${where})`);
}
