/** From a module's text to a set that can be shipped: compiled and proved, with each one's time. */
import { readFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { PROGRAM_IDS, PROGRAM_NAMES, type ProgramName } from "../../abi/index.ts";
import { sourceAt } from "../../compiler/index.ts";
import { javaScriptUrl } from "../../compiler/modules/data-url.ts";
import type { RingFormat } from "../../devices/format.ts";
import {
  forgetChanged,
  type ProgramSets,
  programSets,
  type QueueSizes,
} from "../../devices/program-set.ts";
import { type ProofOptions, proveDevice } from "../../devices/proof.ts";
import { loadFormat } from "../../devices/registry.ts";
import { SLOT } from "../../ebpf/instruction.ts";
import { type Problem, problemOf, refusalProblem } from "./problem.ts";

/** A module that was compiled. */
export interface Built {
  readonly format: RingFormat;
  /** What another thread loads it by. */
  readonly device: string;
  readonly sets: ProgramSets;
  readonly sizes: QueueSizes;
  /** Instructions of each program without helpers. */
  readonly instructions: Readonly<Partial<Record<ProgramName, number>>>;
  readonly compileMs: number;
}

export class Builder {
  /** All files that it is made of, and those of earlier texts. */
  readonly files: Set<string>;
  readonly #url: string;
  readonly #sizes: QueueSizes;
  readonly #accepted: NonNullable<ProofOptions["accepted"]> = new Map();

  constructor(path: string, sizes: QueueSizes) {
    this.files = new Set([path]);
    this.#url = pathToFileURL(path).href;
    this.#sizes = sizes;
  }

  /** The text of all files, to see whether one has changed. */
  texts(): string {
    return [...this.files].map((file) => `${file}\n${textOf(file)}`).join("\n");
  }

  async compile(): Promise<Built | Problem> {
    const started = performance.now();
    try {
      forgetChanged();
      const device = javaScriptUrl(this.#url, this.files);
      const format = await loadFormat(device, fileURLToPath(this.#url)).catch(withCause);
      for (const bufs of Object.values(this.#sizes)) {
        const problem = format.sizeProblem(bufs);
        if (problem !== null) throw new Error(problem);
      }
      this.#addSources(format);
      const sets = programSets(format, this.#sizes);
      const compileMs = performance.now() - started;
      return { format, device, sets, sizes: this.#sizes, instructions: sizesOf(sets), compileMs };
    } catch (error) {
      return problemOf("compile", error);
    }
  }

  /** Guest programs may be in files that the module does not import. */
  #addSources({ programs }: RingFormat): void {
    if (typeof programs === "function") return;
    for (const { file } of sourceAt(programs.url).project.sources) this.files.add(file);
  }

  /** @returns milliseconds, or what is refused. Code that was accepted before is not verified. */
  verify({ format }: Built): number | Problem {
    const started = performance.now();
    const verdicts = proveDevice(format, { ...this.#sizes, accepted: this.#accepted });
    const refused = verdicts.find(({ accepted }) => !accepted);
    return refused === undefined ? performance.now() - started : refusalProblem(refused);
  }
}

/** What a module threw itself says where. */
function withCause(error: Error): never {
  throw error.cause ?? error;
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

function sizesOf({ helperfree }: ProgramSets): Built["instructions"] {
  return Object.fromEntries(
    PROGRAM_NAMES.flatMap((name) => {
      const code = helperfree.code.get(PROGRAM_IDS[name]);
      return code === undefined ? [] : [[name, code.length / SLOT]];
    }),
  );
}
