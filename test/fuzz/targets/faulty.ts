/**
 * Code with a fault selected by the seed, for the tests of campaigns. Not in the list of targets.
 */
import type { Random } from "../../support/ebpf-fuzz/random.ts";
import { Find, type Session, type Target } from "../target.ts";

export const FAULTS = ["find", "crash", "hang", "check"] as const;
/** The case that triggers the fault. */
export const FAULTY_CASE = 3;

type Case = { readonly fault: string; readonly value: number };

class FaultySession implements Session<Case> {
  #cases = 0;
  #broken = false;

  run({ fault }: Case): number {
    // A delay, so that few cases run between two checks.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    if (this.#cases++ !== FAULTY_CASE) return 1;
    if (fault === "find") throw new Find("a find");
    if (fault === "crash") process.kill(process.pid, "SIGSEGV");
    if (fault === "hang") for (;;);
    this.#broken = true;
    return 1;
  }

  check(): void {
    if (this.#broken) throw new Find("a check that fails");
  }

  close(): void {}
}

/** @param fault which of `FAULTS` */
function faulty(fault: (typeof FAULTS)[number]): Target<Case> {
  return {
    name: `faulty-${fault}`,
    description: "a fault, for tests",
    unit: "cases",
    generate: (random: Random) => ({ fault, value: random.next() }),
    open: () => new FaultySession(),
  };
}

export const FAULTY = FAULTS.map(faulty);
