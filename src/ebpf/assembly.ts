/**
 * The common part of the dialects of assembly text: a cursor over one line that tracks its column,
 * and the two passes that turn statements and labels into code.
 */
import { MAX_INSTRUCTIONS } from "../abi/programs.ts";
import { EbpfError, TextError } from "./errors.ts";
import { encodeProgram, type Fields, makeInstruction } from "./instruction.ts";
import type { Operation } from "./opcode.ts";

/** One instruction as written. */
export interface Statement {
  readonly operation: Operation;
  readonly fields: Partial<Fields>;
  /** Label of a jump or local call; the distance goes into the field of that name. */
  readonly target?: Target;
}

export interface Target {
  readonly label: string;
  /** 1-based. */
  readonly column: number;
}

/** Syntax of one dialect. */
export interface Dialect {
  /** Start of a comment, which extends to the end of the line. */
  readonly comment: RegExp;
  /** Optional text before a statement that is ignored, such as its position in a listing. */
  readonly prefix?: RegExp;
  /** Reads one statement. The caller checks that nothing follows. */
  readonly statement: (line: Cursor) => Statement;
  /** Implicit label of the first `exit`, if the text defines no label of that name. */
  readonly exitLabel?: string;
}

const NUMBER = /[+-]?\s*(?:0[xX][0-9a-fA-F]{1,16}|\d{1,20})(?!\w)/y;
const LABEL_DEFINITION = /([A-Za-z_.$][\w.$]*)\s*:/y;
const LABEL = /[A-Za-z_.$][\w.$]*/y;
/** Characters of a line that an error shows. */
const SHOWN = 100;
/**
 * Limit of slots. Larger than a program window, so that a program that is too long is distinct from
 * text that is not a program.
 */
const MAX_SLOTS = 4 * MAX_INSTRUCTIONS;
/** Limit of lines. Listings have several for an instruction: source, labels, bytes. */
const MAX_LINES = 4 * MAX_SLOTS;
/** Characters of one line. */
const MAX_LINE = 4096;

/** A position in a line. Every `take…` skips white space first. */
export class Cursor {
  readonly text: string;
  /** 1-based. */
  readonly line: number;
  #at = 0;

  constructor(text: string, line: number) {
    this.text = text;
    this.line = line;
  }

  /** 1-based column of the next token. */
  get column(): number {
    this.#skipSpace();
    return this.#at + 1;
  }

  get atEnd(): boolean {
    this.#skipSpace();
    return this.#at >= this.text.length;
  }

  /** Consumes the match of a sticky pattern; null if there is none. */
  take(pattern: RegExp): RegExpExecArray | null {
    this.#skipSpace();
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.text);
    if (match !== null) this.#at += match[0].length;
    return match;
  }

  /** True if the sticky pattern matches here. Consumes nothing. */
  sees(pattern: RegExp): boolean {
    this.#skipSpace();
    pattern.lastIndex = this.#at;
    return pattern.test(this.text);
  }

  /** Consumes a match. @throws TextError naming what was expected */
  expect(pattern: RegExp, what: string): RegExpExecArray {
    return this.take(pattern) ?? this.fail(`expected ${what}, found ${this.#found()}`);
  }

  /** True if `symbol` comes next, which is then consumed. */
  accept(symbol: string): boolean {
    this.#skipSpace();
    if (!this.text.startsWith(symbol, this.#at)) return false;
    this.#at += symbol.length;
    return true;
  }

  /** @throws TextError */
  need(symbol: string): void {
    if (!this.accept(symbol)) this.fail(`expected "${symbol}", found ${this.#found()}`);
  }

  /** Reads an integer within [low, high]. @throws TextError */
  number(low: bigint, high: bigint, what: string): bigint {
    const { column } = this;
    const [text] = this.expect(NUMBER, what);
    const magnitude = BigInt(text.replace(/^[+-]\s*/, ""));
    const value = text.startsWith("-") ? -magnitude : magnitude;
    if (value < low || value > high) {
      this.fail(`${what} ${text} is not within ${low}..${high}`, column);
    }
    return value;
  }

  /** Reads signed 16 bits. */
  offset(what = "offset"): number {
    return Number(this.number(-0x8000n, 0x7fffn, what));
  }

  /** Reads 32 bits. An unsigned number stands for the same bits. */
  immediate(what = "immediate"): number {
    return Number(BigInt.asIntN(32, this.number(-0x8000_0000n, 0xffff_ffffn, what)));
  }

  /** Reads 64 bits, as the two halves of a wide load. */
  wide(): { imm: number; high: number } {
    const value = this.number(-(1n << 63n), (1n << 64n) - 1n, "64-bit immediate");
    return {
      imm: Number(BigInt.asIntN(32, value)),
      high: Number(BigInt.asIntN(32, value >> 32n)),
    };
  }

  label(): Target {
    const { column } = this;
    return { label: this.expect(LABEL, "a label")[0], column };
  }

  /** @throws TextError always */
  fail(message: string, column = this.column): never {
    const shown = this.text.trim().slice(0, SHOWN);
    throw new TextError(`${message}: "${shown}"`, this.line, column);
  }

  #found(): string {
    if (this.atEnd) return "the end of the line";
    return `"${/\S[\w.$]*/y.exec(this.text.slice(this.#at, this.#at + 40))?.[0] ?? ""}"`;
  }

  #skipSpace(): void {
    while (this.#at < this.text.length && /\s/.test(this.text[this.#at]!)) this.#at++;
  }
}

interface Placed extends Statement {
  readonly index: number;
  readonly cursor: Cursor;
}

/**
 * Assembles text.
 * @throws TextError with line and column
 */
export function assembleDialect(text: string | readonly string[], dialect: Dialect): Uint8Array {
  const labels = new Map<string, number>();
  const placed: Placed[] = [];
  let index = 0;
  let line = 0;
  for (const raw of typeof text === "string" ? linesOf(text) : text) {
    line++;
    if (raw.length === 0) continue;
    const comment = raw.search(dialect.comment);
    const cursor = new Cursor(comment < 0 ? raw : raw.slice(0, comment), line);
    readLabels(cursor, dialect, labels, index);
    if (cursor.atEnd) continue;
    const statement = dialect.statement(cursor);
    if (!cursor.atEnd) cursor.fail("expected the end of the line");
    placed.push({ ...statement, index, cursor });
    index += statement.operation.kind === "wide" ? 2 : 1;
    if (index > MAX_SLOTS)
      cursor.fail(`programs in text have at most ${MAX_SLOTS} instructions`, 1);
  }
  const firstExit = placed.find((p) => p.operation.kind === "exit");
  if (dialect.exitLabel !== undefined && firstExit && !labels.has(dialect.exitLabel)) {
    labels.set(dialect.exitLabel, firstExit.index);
  }
  return encodeProgram(placed.map((p) => resolve(p, labels)));
}

/**
 * Yields the lines of a text one at a time: a list of all lines of a large text would take a
 * hundred times its size.
 * @throws TextError if there are too many, or one is too long
 */
function* linesOf(text: string): Generator<string> {
  let start = 0;
  for (let line = 1; start <= text.length; line++) {
    const found = text.indexOf("\n", start);
    const end = found < 0 ? text.length : found;
    if (line > MAX_LINES) throw new TextError(`programs have at most ${MAX_LINES} lines`, line, 1);
    if (end - start > MAX_LINE) {
      throw new TextError(`lines have at most ${MAX_LINE} characters`, line, 1);
    }
    yield text.slice(start, text[end - 1] === "\r" && end > start ? end - 1 : end);
    start = end + 1;
  }
}

function readLabels(cursor: Cursor, dialect: Dialect, labels: Map<string, number>, index: number) {
  if (dialect.prefix !== undefined) cursor.take(dialect.prefix);
  for (;;) {
    const { column } = cursor;
    const name = cursor.take(LABEL_DEFINITION)?.[1];
    if (name === undefined) return;
    if (labels.has(name)) cursor.fail(`label ${name} is defined twice`, column);
    labels.set(name, index);
  }
}

function resolve(
  { operation, fields, target, index, cursor }: Placed,
  labels: Map<string, number>,
) {
  if (target === undefined) return make(cursor, operation, fields, index);
  const at =
    labels.get(target.label) ?? cursor.fail(`label ${target.label} is not defined`, target.column);
  const distance = at - index - 1;
  const inImm = operation.kind === "call" || (operation.kind === "goto" && operation.long);
  if (!inImm && (distance < -0x8000 || distance > 0x7fff)) {
    cursor.fail(`${target.label} is ${distance} slots away: use gotol`, target.column);
  }
  return make(cursor, operation, { ...fields, [inImm ? "imm" : "offset"]: distance }, index);
}

function make(cursor: Cursor, operation: Operation, fields: Partial<Fields>, index: number) {
  try {
    return makeInstruction(operation, fields, index);
  } catch (error) {
    if (error instanceof EbpfError) cursor.fail(error.message.replace(/^instruction \d+: /, ""), 1);
    throw error;
  }
}

/**
 * Returns the number of a register name such as "r10", whose form the pattern has checked.
 * @throws TextError above 10
 */
export function registerNumber(cursor: Cursor, digits: string, column: number): number {
  const number = Number(digits);
  if (number > 10) cursor.fail(`there is no register r${digits}`, column);
  return number;
}
