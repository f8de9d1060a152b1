/** What `bpfhv dev` tells: lines for people, or one JSON object a line. */
import { PROGRAM_NAMES } from "../../abi/index.ts";
import type { Built } from "./build.ts";
import { describeProblem, type Problem } from "./problem.ts";

/** Milliseconds. */
export interface Phases {
  /** From the file's time to the start of the compiler. */
  readonly notice: number;
  readonly compile: number;
  readonly verify: number;
  /** In a thread of its own, beside `verify`: loaded, and tried with some packets. */
  readonly load: number;
  readonly swap: number;
}

export type DevEvent =
  | { readonly event: "started"; readonly device: string; readonly target: string }
  | {
      readonly event: "swapped";
      readonly device: string;
      /** From the file's time to the guest's last step. */
      readonly ms: number;
      readonly phases: Phases;
      readonly instructions: Built["instructions"];
    }
  | {
      readonly event: "rate";
      /** Packets a second of work, both ways. */
      readonly before: number;
      readonly after: number;
      readonly packets: number;
      readonly lost: number;
      readonly repeated: number;
      readonly damaged: number;
    }
  | ({ readonly event: "refused" } & Problem)
  | { readonly event: "missing"; readonly file: string }
  | { readonly event: "died"; readonly message: string }
  | {
      readonly event: "stopped";
      readonly packets: number;
      readonly lost: number;
      readonly repeated: number;
      readonly damaged: number;
    };

export class Report {
  readonly #json: boolean;
  #before: Built["instructions"] = {};
  /** Whether any NIC runs. */
  runs = false;

  constructor(json: boolean) {
    this.#json = json;
  }

  tell(event: DevEvent): void {
    const text = this.#json ? JSON.stringify(event) : this.#words(event);
    process.stdout.write(`${text}\n`);
  }

  #words(event: DevEvent): string {
    switch (event.event) {
      case "started":
        return `${event.device} runs, in ${event.target}; waiting for changes, Ctrl-C ends`;
      case "swapped":
        return this.#swapped(event);
      case "rate": {
        const { before, after, packets, lost, repeated, damaged } = event;
        const bad = `${lost} lost, ${repeated} repeated, ${damaged} damaged`;
        return `  before ${rate(before)}, after ${rate(after)}; ${packets} packets so far: ${bad}`;
      }
      case "refused":
        return `${describeProblem(event)}\n  ${this.#runs()}`;
      case "missing":
        return `${event.file} is not there, or empty: waiting for it\n  ${this.#runs()}`;
      case "died":
        return `the guest's thread died: ${event.message}\n  it starts again with the NIC of before`;
      default: {
        const { packets, lost, repeated, damaged } = event;
        return `${packets} packets: ${lost} lost, ${repeated} repeated, ${damaged} damaged`;
      }
    }
  }

  #runs(): string {
    return this.runs ? "the NIC of before carries on" : "no NIC runs yet";
  }

  #swapped({ device, ms, phases, instructions }: DevEvent & { event: "swapped" }): string {
    const times = Object.entries(phases).map(([name, value]) => `${name} ${value.toFixed(0)}`);
    const sizes = PROGRAM_NAMES.flatMap((name) => {
      const size = instructions[name];
      if (size === undefined) return [];
      const change = size - (this.#before[name] ?? size);
      const words = change === 0 ? "" : ` (${change > 0 ? "+" : ""}${change})`;
      return [`${name} ${size}${words}`];
    });
    this.#before = instructions;
    const head = `${device} runs ${ms.toFixed(0)} ms after the save (${times.join(", ")} ms)`;
    return `${head}\n  instructions: ${sizes.join(", ")}`;
  }
}

const rate = (perSecond: number): string => `${(perSecond / 1000).toFixed(0)} kp/s`;
