/**
 * A program with what is known of where its instructions come from: what compilers make and ELF
 * objects hold.
 */

/** A place in a source file, 1-based. */
export interface SourceLine {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** The line's text, without indentation. */
  readonly text: string;
}

export interface Program {
  /** Its section or function: "txp", "main". */
  readonly name: string;
  /** The wire form, 8 bytes a slot. */
  readonly code: Uint8Array;
  /** By slot: where the instructions from there on come from, until the next entry. */
  readonly lines?: ReadonlyMap<number, SourceLine>;
  /**
   * By slot: what a loader would put there, as text: `map(events)`, `address(.rodata + 8)`,
   * `extern(f)`.
   */
  readonly references?: ReadonlyMap<number, string>;
}

/** The source line of the instruction at `slot`: the entry there or the nearest before it. */
export function lineOf({ lines }: Program, slot: number): SourceLine | undefined {
  if (lines === undefined) return undefined;
  for (let at = slot; at >= 0; at--) {
    const line = lines.get(at);
    if (line !== undefined) return line;
  }
  return undefined;
}
