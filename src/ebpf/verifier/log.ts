/** The full log: every followed instruction, with the state before it. */
import type { Instruction } from "../instruction.ts";
import { lineOf, type Program, type SourceLine } from "../program.ts";
import { formatInstruction } from "../text.ts";
import type { ExploreOptions } from "./explore.ts";
import { STACK_SLOTS, type State } from "./state.ts";
import { describe } from "./value.ts";

/** Lines kept at the start, and as many at the end. */
const KEPT = 20_000;

export class StateLog {
  readonly #program: Program;
  readonly #first: string[] = [];
  #last: string[] = [];
  #dropped = 0;
  #line: SourceLine | undefined;

  constructor(program: Program) {
    this.#program = program;
  }

  /** The hooks of `Exploration`. */
  get hooks(): Pick<ExploreOptions, "trace" | "pruned"> {
    return {
      trace: (state, instruction) => this.#instruction(state, instruction),
      pruned: (slot) => this.#add(`${slot}: pruned: a state seen before covers it`),
    };
  }

  lines(): string[] {
    if (this.#dropped === 0) return [...this.#first, ...this.#last];
    return [...this.#first, `… ${this.#dropped} lines omitted …`, ...this.#last];
  }

  #instruction(state: State, i: Instruction): void {
    const line = lineOf(this.#program, i.index);
    if (line !== undefined && line !== this.#line) {
      this.#add(`; ${line.file}:${line.line}: ${line.text}`);
    }
    this.#line = line;
    this.#add(`${i.index}: ${formatInstruction(i).padEnd(36)} ; ${describeFrame(state)}`);
  }

  #add(line: string): void {
    if (this.#first.length < KEPT) {
      this.#first.push(line);
      return;
    }
    this.#last.push(line);
    if (this.#last.length < 2 * KEPT) return;
    this.#dropped += KEPT;
    this.#last = this.#last.slice(KEPT);
  }
}

/** Formats registers and stack of the current function: `r1=context + 0 r2=0..64 fp-8=1`. */
export function describeFrame(state: State): string {
  const { registers, stack } = state.frame;
  const parts: string[] = [];
  registers.forEach((value, n) => {
    if (n < 10 && value !== undefined) parts.push(`r${n}=${describe(value)}`);
  });
  for (let n = 0; n < STACK_SLOTS; n++) {
    const slot = stack?.[n];
    if (slot === undefined) continue;
    const bytes = slot.value === undefined ? bytesOf(slot.written) : describe(slot.value);
    parts.push(`fp-${8 * (n + 1)}=${bytes}`);
  }
  const depth = state.frames.length;
  return `${depth > 1 ? `frame ${depth}: ` : ""}${parts.join(", ")}`;
}

/** `?` for a written byte, `-` otherwise. */
function bytesOf(written: number): string {
  return Array.from({ length: 8 }, (_, n) => ((written >> n) & 1 ? "?" : "-")).join("");
}
