/** The choices that make a random program: numbers from fast-check, which can shrink them. */
export class Choices {
  readonly #numbers: readonly number[];
  #at = 0;

  constructor(numbers: readonly number[]) {
    this.#numbers = numbers;
  }

  below(n: number): number {
    return (this.#numbers[this.#at++ % this.#numbers.length]! >>> 0) % n;
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

export const TYPES = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"] as const;
export type Type = (typeof TYPES)[number];

export const bitsOf = (type: Type): number => Number(type.slice(1));

export const wrap = (type: Type, value: bigint): bigint =>
  type[0] === "i" ? BigInt.asIntN(bitsOf(type), value) : BigInt.asUintN(bitsOf(type), value);

/**
 * Fields of the structs of programs, by name: one in the context, `m`, and one on the stack, `s`.
 */
export const FIELDS: Readonly<Record<string, Type>> = {
  a8: "u8",
  b8: "u8",
  a16: "u16",
  b16: "u16",
  a32: "u32",
  b32: "u32",
  a64: "u64",
  b64: "u64",
};
export const FIELD_NAMES: readonly string[] = Object.keys(FIELDS);

/** The evaluator's state: variables, and fields as "m.a8". */
export type State = Map<string, bigint>;

/** Readable variables and their types. */
export type Names = ReadonlyMap<string, Type>;

/** A function for expressions: its text, and its evaluation. */
export interface Callable {
  readonly name: string;
  readonly params: readonly Type[];
  readonly returns: Type;
  readonly text: string;
  readonly apply: (args: readonly bigint[]) => bigint;
}

/** The names available to an expression. */
export interface Place {
  readonly names: Names;
  readonly functions: readonly Callable[];
  /** Prefixes of structs: "m" and "s" in programs, none in functions. */
  readonly structs: readonly string[];
}
