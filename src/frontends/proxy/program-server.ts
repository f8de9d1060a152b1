/**
 * The programs that a backend sends: proved once for each size of the queues, which the VMM sets.
 */
import type { ProgramName, ProgramSet } from "../../abi/index.ts";
import type { RingFormat } from "../../devices/format.ts";
import { programsOf } from "../../devices/program-set.ts";
import { proofOf, proveDevice, UnprovedError } from "../../devices/proof.ts";
import { writeProgramObject } from "./program-object.ts";

export interface OfferOptions {
  readonly device: RingFormat;
  readonly warn: (text: string) => void;
  /** Also send programs that the verifier refuses. */
  readonly allowUnverified?: boolean;
}

export interface Parameters {
  readonly rxBufs: number;
  readonly txBufs: number;
}

export class ProgramServer {
  readonly #options: OfferOptions;
  /** By sizes of the queues: at most 100 entries. */
  readonly #problems = new Map<string, string | null>();

  constructor(options: OfferOptions) {
    this.#options = options;
  }

  /**
   * Says why programs for queues of these sizes must not be sent; null if they may be. Proves them
   * the first time, while no packets flow.
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

  /** Makes an object file in a memfd, of version 1 form. @returns its descriptor, for the caller */
  object({ rxBufs, txBufs }: Parameters): number {
    const { device } = this.#options;
    const rx = programsOf(device, { bufs: rxBufs, form: "v1" });
    const tx = programsOf(device, { bufs: txBufs, form: "v1" });
    const setOf = (name: ProgramName): ProgramSet => (name.startsWith("rx") ? rx : tx);
    return writeProgramObject(setOf);
  }
}
