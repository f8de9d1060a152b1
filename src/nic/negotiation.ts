/** What the driver agrees to: abilities, features, and its verdict on the programs. */
import { ABILITY, PROGRAM_NAMES, Q_CMD, VERDICT } from "../abi/index.ts";
import type { Generation } from "./generation.ts";
import type { Nic } from "./nic.ts";

/** Abilities beyond version 1. */
export const OFFERED_ABILITIES =
  ABILITY.OVERLAP |
  ABILITY.BLOB |
  ABILITY.EVENT |
  ABILITY.GEOMETRY |
  ABILITY.HELPERFREE |
  ABILITY.CTX_PAGES |
  ABILITY.QUEUE_PAIRS |
  ABILITY.FILTER |
  ABILITY.COALESCE |
  ABILITY.RSS;

export function has(nic: Nic, ability: number): boolean {
  return (nic.state.abilities & ability) !== 0;
}

/** The set that registers show; null if SET_VIEW is of one that is staged no more. */
export function shownSet(nic: Nic): Generation | null {
  nic.setRead = true;
  return nic.upgrade.shown;
}

/** Abilities change what programs and contexts are, so they are fixed while packets flow. */
export function acknowledge(nic: Nic, abilities: number): void {
  if ((abilities & ~OFFERED_ABILITIES) !== 0 || nic.enabled) {
    const what = `abilities 0x${abilities.toString(16)}`;
    return nic.refusals.add("register", `${what} were not offered, or the NIC is enabled`);
  }
  nic.state.abilities = abilities;
  // What was raised for the driver before is not for one that does not take events.
  if (!(abilities & ABILITY.EVENT)) nic.state.events = 0;
  nic.useSettings();
  if (abilities !== 0) driverFound(nic);
}

/** A selection is refused as a whole if a bit was not offered, or while packets flow. */
export function selectFeatures(nic: Nic, features: number): void {
  const { upgrade, refusals } = nic;
  const shown = shownSet(nic);
  if (shown === null || (upgrade.view !== 0 && !upgrade.open)) {
    refusals.add("features", "features selected of a set that is not staged");
  } else if ((features & ~shown.features) !== 0) {
    refusals.add("features", `features 0x${features.toString(16)} were not offered`);
  } else if (upgrade.view !== 0) {
    upgrade.selectedFeatures = features;
    upgrade.negotiated = true;
  } else if (nic.enabled) {
    refusals.add("features", "features changed while the NIC is enabled");
  } else {
    nic.state.selectedFeatures = features;
    nic.state.featuresNegotiated = true;
    nic.setRead = true;
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
  const reason = VERDICT_REASONS[code];
  if (code !== VERDICT.READY && reason === undefined) {
    return nic.refusals.add("register", `verdict ${verdict} has an unknown code`);
  }
  if (has(nic, ABILITY.OVERLAP)) return judgeNext(nic, verdict >>> 8, code);
  if (code !== VERDICT.READY) nic.refusals.add("enable", `the guest ${why(nic, code)}`);
}

/** The driver may still judge the running set, which it loads when it finds the NIC. */
function judgeNext(nic: Nic, id: number, code: number): void {
  const { running, wanted, upgrade, refusals } = nic;
  if (wanted !== null && id === wanted.id && upgrade.phase === "staged") {
    const problem = code === VERDICT.READY ? upgrade.ready() : "";
    if (problem !== "") refusals.add("upgrade", `ready for set ${id}: ${problem}`);
    if (code !== VERDICT.READY) upgrade.refused(`the guest ${why(nic, code)}`);
  } else if (id !== running.id) {
    refusals.add("upgrade", `verdict on set ${id}, which is not staged`);
  } else if (code !== VERDICT.READY) refusals.add("enable", `the guest ${why(nic, code)}`);
}

function why({ state: { verdictInfo } }: Nic, code: number): string {
  const reason = VERDICT_REASONS[code];
  if (verdictInfo === 0) return reason;
  const program = PROGRAM_NAMES[(verdictInfo >>> 24) - 1] ?? `${verdictInfo >>> 24}`;
  const index = verdictInfo & UNKNOWN_INSTRUCTION;
  const where = index === UNKNOWN_INSTRUCTION ? "" : `, instruction ${index}`;
  return `${reason} (program ${program}${where})`;
}

/** What the driver asks of single queues while a set is replaced. */
export function commandQueue(nic: Nic, value: number): void {
  const index = value & 0xffff;
  const problem = obey(nic, value >>> 16, index);
  if (problem !== "") nic.refusals.add("upgrade", `command ${value >>> 16}: ${problem}`);
}

function obey({ upgrade }: Nic, command: number, index: number): string {
  if (command === Q_CMD.TX_CUT) return upgrade.cut("tx", index);
  if (command === Q_CMD.RX_CUT) return upgrade.cut("rx", index);
  if (command === Q_CMD.RETIRE) return upgrade.retire(index);
  return "unknown";
}

export function selectView(nic: Nic, view: number): void {
  const problem = view > 1 ? "use 0 or 1" : nic.upgrade.show(view === 1);
  if (problem !== "") nic.refusals.add("upgrade", `view of set ${view}: ${problem}`);
}
