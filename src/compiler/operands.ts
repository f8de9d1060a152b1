/** What an expression of the source stands for while a function is lowered: run-time values and compile-time things. */
import type { Field, Struct } from "../abi/layout.ts";
import type { Builder, Variable } from "./build.ts";
import type { CompileError, CompileErrorCode } from "./errors.ts";
import type { Block, Func, Value } from "./ir.ts";
import { errorAt, type Node, type Source } from "./parse.ts";
import type { IntType } from "./types.ts";

export type Layout = Struct<Record<string, Field>>;

export type Operand =
  | { readonly kind: "int"; readonly type: IntType; readonly value: Value }
  /** An integer known now; `big` where it was written as a bigint. It takes the width of what it meets. */
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
  /** A value of the compiling program: boolean, string, layout, table of constants. */
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

/** What a name in a function means. */
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
  /** Type that `return` converts to, where the source says so. */
  readonly returns: IntType | "bool" | undefined;
  /** Where `return` goes, and what came there; undefined for the program itself. */
  readonly inlined?: {
    readonly exit: Block;
    readonly results: { from: Block; operand: Operand }[];
  };
}

/** The functions that a program really calls. */
export interface OutOfLine {
  readonly made: Map<Node, Func>;
  /** Those being lowered, each called by the one before. */
  readonly open: Node[];
}

/** All that lowering one function works with. */
export interface Unit {
  /** The file of what is being lowered; another one while a function or constant of it is (`within`). */
  source: Source;
  readonly builder: Builder;
  /** Values for free names: specialisation and imports. */
  readonly given: Readonly<Record<string, unknown>>;
  /** Module-level constants already evaluated, by their initialisers. */
  readonly constants: Map<Node, Operand>;
  /** Functions being inlined into each other. */
  depth: number;
  readonly outOfLine: OutOfLine;
}

/** Does `work` on code of another file: its names, places and errors are that file's. */
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

/** An error at a node of the file that is being lowered. */
export function fail(
  unit: Unit,
  node: Node,
  code: CompileErrorCode,
  reason: string,
  hint: string,
): CompileError {
  return errorAt(unit.source, node, code, reason, hint);
}

/** @throws CompileError UNSUPPORTED for a function that does not run from its start to its end */
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

/** @returns the operand for a value of the compiling program */
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

/** What the operand is, for messages. */
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
