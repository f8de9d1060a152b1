/**
 * Operands: what an expression denotes while a function is lowered. Run-time values and
 * compile-time entities.
 */
import type { Field, Struct } from "../abi/layout.ts";
import type { Builder, Variable } from "./build.ts";
import type { CompileError, CompileErrorCode } from "./errors.ts";
import type { Block, Func, Value } from "./ir.ts";
import { errorAt, type Node, type Source } from "./parse.ts";
import type { IntType } from "./types.ts";

export type Layout = Struct<Record<string, Field>>;

export type Operand =
  | { readonly kind: "int"; readonly type: IntType; readonly value: Value }
  /**
   * An integer known at compile time; `big` if it was written as a bigint.
   * It takes the width of the other operand.
   */
  | { readonly kind: "const"; readonly value: bigint; readonly big: boolean }
  /** A truth value known at run time, 0 or 1. */
  | { readonly kind: "truth"; readonly value: Value }
  | { readonly kind: "context"; readonly value: Value }
  | {
      readonly kind: "view" | "elements";
      readonly layout: Layout;
      readonly base: Value;
      readonly offset: number;
    }
  /** A compile-time value: boolean, string, layout, table of constants. */
  | { readonly kind: "data"; readonly value: unknown }
  | {
      readonly kind: "function";
      readonly node: Node;
      readonly name: string;
      /** The file that declares it. */
      readonly source: Source;
    }
  | { readonly kind: "intrinsic"; readonly name: string }
  | { readonly kind: "void" };

/** Meaning of a name in a function. */
export type Binding =
  | { readonly kind: "variable"; readonly variable: Variable; readonly type: IntType | "bool" }
  | { readonly kind: "fixed"; readonly operand: Operand };

export class Scope {
  readonly #names = new Map<string, Binding>();
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  find(name: string): Binding | undefined {
    return this.#names.get(name) ?? this.#outer?.find(name);
  }

  declare(name: string, binding: Binding): void {
    this.#names.set(name, binding);
  }
}

/** A function being lowered: the program's own, or one inlined into it. */
export interface Frame {
  readonly name: string;
  /** Type that `return` converts to, if it is annotated. */
  readonly returns: IntType | "bool" | undefined;
  /** Target of `return`, and the values returned; undefined for the program itself. */
  readonly inlined?: {
    readonly exit: Block;
    readonly results: { from: Block; operand: Operand }[];
  };
}

/** The functions that a program calls out of line. */
export interface OutOfLine {
  readonly made: Map<Node, Func>;
  /** Functions being lowered, each called by the one before. */
  readonly open: Node[];
}

/** State of the lowering of one function. */
export interface Unit {
  /**
   * The current file. `within` changes it while a function or constant of another file is lowered.
   */
  source: Source;
  readonly builder: Builder;
  /** Values for free names: specialisation and imports. */
  readonly given: Readonly<Record<string, unknown>>;
  /** Evaluated module-level constants, by their initialisers. */
  readonly constants: Map<Node, Operand>;
  /** Depth of nested inlining. */
  depth: number;
  readonly outOfLine: OutOfLine;
}

/** Runs `work` on code of another file, for names, places and errors. */
export function within<T>(unit: Unit, source: Source, work: () => T): T {
  const before = unit.source;
  enterFile(unit, source);
  try {
    return work();
  } finally {
    enterFile(unit, before);
  }
}

function enterFile(unit: Unit, source: Source): void {
  unit.source = source;
  unit.builder.origin = source.start;
}

/** Returns an error at a node of the current file. */
export function fail(
  unit: Unit,
  node: Node,
  code: CompileErrorCode,
  reason: string,
  hint: string,
): CompileError {
  return errorAt(unit.source, node, code, reason, hint);
}

/** @throws CompileError UNSUPPORTED for an async function or a generator */
export function checkFunction(unit: Unit, node: Node): void {
  const kind = node.async ? "async" : node.generator ? "a generator" : undefined;
  if (kind === undefined) return;
  throw fail(
    unit,
    node.id,
    "UNSUPPORTED",
    `a function that is ${kind}`,
    "write function NAME(...)",
  );
}

/** @returns the operand of a compile-time value */
export function fromData(value: unknown): Operand {
  if (typeof value === "bigint") return { kind: "const", value, big: true };
  if (typeof value === "number" && Number.isInteger(value)) {
    return { kind: "const", value: BigInt(value), big: false };
  }
  return { kind: "data", value };
}

export function isLayout(value: unknown): value is Layout {
  return typeof value === "object" && value !== null && "fields" in value && "size" in value;
}

/** Describes the operand, for messages. */
export function describe(operand: Operand): string {
  switch (operand.kind) {
    case "int":
      return operand.type.name;
    case "const":
      return operand.big ? `constant ${operand.value}n` : `constant ${operand.value}`;
    case "truth":
      return "boolean";
    case "view":
      return `struct ${operand.layout.name}`;
    case "elements":
      return `array of ${operand.layout.name}`;
    case "data":
      return isLayout(operand.value) ? `layout ${operand.value.name}` : typeof operand.value;
    case "void":
      return "nothing";
    default:
      return operand.kind;
  }
}
