/** A program with the origin of its instructions, as compilers make and ELF objects hold it. */

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
  /** By slot: the source line of the instructions from there to the next entry. */
  readonly lines?: ReadonlyMap<number, SourceLine>;
  /** By slot: a loader's reference as text: `map(events)`, `address(.rodata + 8)`, `extern(f)`. */
  readonly references?: ReadonlyMap<number, string>;
}

/** Returns the source line of the instruction at `slot`: the nearest entry at or before it. */
export function lineOf({ lines }: Program, slot: number): SourceLine | undefined {
  if (lines === undefined) return undefined;
  for (let at = slot; at >= 0; at--) {
    const line = lines.get(at);
    if (line !== undefined) return line;
  }
  return undefined;
}
