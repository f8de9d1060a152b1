/**
 * The programs that a backend hands out: proved once for each size of the queues, which only the
 * VMM knows.
 */
import type { ProgramName, ProgramSet } from "../../abi/index.ts";
import type { Device } from "../../devices/format.ts";
import { programsOf } from "../../devices/program-set.ts";
import { proofOf, proveDevice, UnprovedError } from "../../devices/proof.ts";
import { writeProgramObject } from "./program-object.ts";

export interface OfferOptions {
  readonly device: Device;
  readonly warn: (text: string) => void;
  /** Hand out programs that the verifier refuses, too. */
  readonly allowUnverified?: boolean;
}

export interface Parameters {
  readonly rxBufs: number;
  readonly txBufs: number;
}

export class ProgramServer {
  readonly #options: OfferOptions;
  /** By sizes of the queues, of which there are 100. */
  readonly #problems = new Map<string, string | null>();

  constructor(options: OfferOptions) {
    this.#options = options;
  }

  /**
   * Why the programs for such queues must not be handed out; null: they may. It is found once per
   * size, and packets do not flow then.
   */
  problemOf(parameters: Parameters): string | null {
    const sizes = `${parameters.rxBufs} ${parameters.txBufs}`;
    let problem = this.#problems.get(sizes);
    if (problem === undefined) {
      problem = this.#prove(parameters);
      this.#problems.set(sizes, problem);
    }
    return problem;
  }

  #prove(parameters: Parameters): string | null {
    const { device, allowUnverified = false, warn } = this.#options;
    try {
      const verdicts = proveDevice(device, { ...parameters, forms: ["v1"] });
      const proof = proofOf(device, verdicts, allowUnverified);
      if (proof !== "proved") warn(`programs ${proof}`);
      return null;
    } catch (error) {
      if (!(error instanceof UnprovedError)) throw error;
      return error.message;
    }
  }

  /**
   * In version 1 form, as an object file that lives in memory only. @returns its descriptor, the
   * caller's
   */
  object({ rxBufs, txBufs }: Parameters): number {
    const { device } = this.#options;
    const rx = programsOf(device, { bufs: rxBufs, form: "v1" });
    const tx = programsOf(device, { bufs: txBufs, form: "v1" });
    const setOf = (name: ProgramName): ProgramSet => (name.startsWith("rx") ? rx : tx);
    return writeProgramObject(setOf);
  }
}
