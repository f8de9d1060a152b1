/**
 * Reads the dialect that `text.ts` writes, and the variants of clang, llvm-objdump and the kernel's
 * verifier: labels, hexadecimal numbers, positions, `pc+3`, `<symbols>` after targets, all
 * spellings of atomics.
 *
 *     loop: if r1 == 0 goto done ; or # or //: comment
 *     r1 -= 1
 *     goto loop
 *     done: call helper_of_this_file
 *     exit
 */
import {
  assembleDialect,
  type Cursor,
  type Dialect,
  registerNumber,
  type Statement,
} from "./assembly.ts";
import type { Fields } from "./instruction.ts";
import {
  type AccessSize,
  ATOMIC_OPS,
  type AtomicOp,
  type Bits,
  type Operation,
  type SwapTo,
  WIDE_KINDS,
  type WideKind,
} from "./opcode.ts";
import { ALU_SIGNS, JUMP_SIGNS, LOCK_SIGNS } from "./text-signs.ts";

const DIALECT: Dialect = {
  comment: /;|#|\/\//,
  // "12:" in listings; then the kernel has the opcode, "12: (b7)", and llvm-objdump all bytes.
  prefix: /\d+:\s*(?:\([0-9a-f]{2}\)\s*|(?:[0-9a-f]{2}\s+){8,16})?/y,
  statement: readStatement,
};

/**
 * Assembles a program.
 * @throws TextError with line and column
 */
export function assembleText(text: string | readonly string[]): Uint8Array {
  return assembleDialect(text, DIALECT);
}

const REGISTER = /([rw])(\d{1,2})(?!\w)/y;
const WIDE_REGISTER = /r(\d{1,2})(?!\w)/y;
const WORD = /[a-z][a-z0-9_]*/y;
const SYMBOL = /<[^<>]*>/y;

const inverse = <K extends string>(table: Readonly<Record<K, string>>): Map<string, K> =>
  new Map((Object.entries(table) as [K, string][]).map(([key, sign]) => [sign, key]));

const ALU_BY_SIGN = inverse(ALU_SIGNS);
const JUMP_BY_SIGN = inverse(JUMP_SIGNS);
const LOCK_BY_SIGN = inverse(LOCK_SIGNS);

/** Returns a sticky pattern of signs, longest first. */
function anyOf(signs: Iterable<string>): RegExp {
  const sorted = [...signs].sort((a, b) => b.length - a.length);
  return new RegExp(sorted.map((sign) => sign.replace(/[*+/|^&]/g, "\\$&")).join("|"), "y");
}
const ALU_SIGN = anyOf(ALU_BY_SIGN.keys());
const JUMP_SIGN = anyOf(JUMP_BY_SIGN.keys());
const LOCK_SIGN = anyOf(LOCK_BY_SIGN.keys());

/** Statements that begin with a word. */
const KEYWORDS: Readonly<Record<string, (line: Cursor) => Statement>> = {
  exit: () => ({ operation: { kind: "exit" }, fields: {} }),
  goto: (line) => ({ ...target(line, "offset"), operation: { kind: "goto", long: false } }),
  gotol: (line) => ({ ...target(line, "imm"), operation: { kind: "goto", long: true } }),
  if: conditional,
  call,
  callx: (line) => ({
    operation: { kind: "call", target: "register" },
    fields: { dst: wideRegister(line) },
  }),
  lock: locked,
};

function readStatement(line: Cursor): Statement {
  if (line.accept("*")) return store(line);
  const { column } = line;
  const left = takeRegister(line);
  if (left !== null) return line.accept("=") ? assignment(line, left) : update(line, left);
  const word = line.expect(WORD, "an instruction")[0];
  if (!Object.hasOwn(KEYWORDS, word)) line.fail(`"${word}" does not begin an instruction`, column);
  return KEYWORDS[word]!(line);
}

interface Register {
  readonly number: number;
  readonly bits: Bits;
}

function takeRegister(line: Cursor): Register | null {
  const { column } = line;
  const match = line.take(REGISTER);
  if (match === null) return null;
  const number = registerNumber(line, match[2]!, column);
  return { number, bits: match[1] === "r" ? 64 : 32 };
}

/** Reads a register of that width. */
function registerOf(line: Cursor, bits: Bits): number {
  const { column } = line;
  const found = takeRegister(line) ?? line.fail("expected a register");
  if (found.bits !== bits) {
    const wanted = bits === 64 ? "r" : "w";
    line.fail(`expected ${wanted}${found.number}: both sides have the same width`, column);
  }
  return found.number;
}

function wideRegister(line: Cursor): number {
  const { column } = line;
  return registerNumber(line, line.expect(WIDE_REGISTER, "a 64-bit register")[1]!, column);
}

/** Reads a register of that width, or an immediate. */
function operand(line: Cursor, bits: Bits): { source: "reg" | "imm"; fields: Partial<Fields> } {
  return line.sees(/[rw]\d/y)
    ? { source: "reg", fields: { src: registerOf(line, bits) } }
    : { source: "imm", fields: { imm: line.immediate("register or immediate") } };
}

/**
 * A loader's reference: `map(events)`, `address(.rodata + 8)`, `extern(f)`. The object has the
 * addend in its place, and -1 for a call.
 */
const REFERENCE = /(?:map|address)\(\s*[^()\s]+\s*(?:\+\s*(-?\d{1,10})\s*)?\)\s*ll\b/y;
const EXTERN = /extern\(\s*[^()\s]+\s*\)/y;

/** Reads `+3`, `pc+3` or a label; ignores a symbol in angle brackets after it. */
function target(line: Cursor, field: "offset" | "imm"): Pick<Statement, "fields" | "target"> {
  line.take(/pc(?=\s*[+-])/y);
  const relative = line.sees(/[+-]/y);
  const found = relative
    ? {
        fields: { [field]: field === "imm" ? line.immediate("distance") : line.offset("distance") },
      }
    : { fields: {}, target: line.label() };
  line.take(SYMBOL);
  return found;
}

function conditional(line: Cursor): Statement {
  const left = takeRegister(line) ?? line.fail("expected a register");
  const op = JUMP_BY_SIGN.get(line.expect(JUMP_SIGN, "a comparison")[0])!;
  const { source, fields } = operand(line, left.bits);
  line.need("goto");
  const to = target(line, "offset");
  const operation = { kind: "jump", op, bits: left.bits, source } as const;
  return { ...to, operation, fields: { ...to.fields, ...fields, dst: left.number } };
}

/** `call 12` calls a helper; `call pc+3` and `call label` call functions of the program. */
function call(line: Cursor): Statement {
  if (line.take(/btf(?=\s+[-+\d])/y) !== null) {
    return { operation: { kind: "call", target: "btf" }, fields: { imm: line.immediate("id") } };
  }
  if (line.take(EXTERN) !== null) {
    return { operation: { kind: "call", target: "local" }, fields: { imm: -1 } };
  }
  if (line.sees(/-?\d/y)) {
    const imm = line.immediate("helper");
    return { operation: { kind: "call", target: "helper" }, fields: { imm } };
  }
  return { ...target(line, "imm"), operation: { kind: "call", target: "local" } };
}

/** Reads `(u32 *)`. */
function pointer(line: Cursor): { signed: boolean; bits: number } {
  const [, letter, bits] = line.expect(/\(\s*([us])(8|16|32|64)\s*\*\s*\)/y, "a type as (u32 *)");
  return { signed: letter === "s", bits: Number(bits) };
}

/** Reads `r1 + 8`. The offset is optional. */
function address(line: Cursor): { register: number; offset: number } {
  const register = wideRegister(line);
  const more = line.sees(/[+-]/y);
  return { register, offset: more ? line.offset() : 0 };
}

function place(line: Cursor): { register: number; offset: number } {
  line.need("(");
  const found = address(line);
  line.need(")");
  return found;
}

const sizeOf = (bits: number): AccessSize => (bits / 8) as AccessSize;

/** After `*`: `(u32 *)(r10 - 4) = 7`. */
function store(line: Cursor): Statement {
  const { column } = line;
  const { signed, bits } = pointer(line);
  if (signed) line.fail("stores have no sign: use u", column);
  const to = place(line);
  line.need("=");
  // clang writes the w name of a register for stores of 32 bits or fewer.
  const wide = bits === 64 || !line.sees(/w\d/y);
  const { source, fields } = operand(line, wide ? 64 : 32);
  const operation = { kind: "store", size: sizeOf(bits), source } as const;
  return { operation, fields: { ...fields, dst: to.register, offset: to.offset } };
}

/** After `lock`: `*(u64 *)(r1 + 0) += r2`. */
function locked(line: Cursor): Statement {
  line.need("*");
  const bits = atomicBits(line);
  const to = place(line);
  const op = LOCK_BY_SIGN.get(line.expect(LOCK_SIGN, "+=, |=, &= or ^=")[0])!;
  return atomic(op, bits, to, registerOf(line, bits));
}

function atomicBits(line: Cursor): Bits {
  const { column } = line;
  const { signed, bits } = pointer(line);
  if (signed || bits < 32) line.fail("atomics take u32 or u64", column);
  return bits as Bits;
}

function atomic(
  op: AtomicOp,
  bits: Bits,
  to: { register: number; offset: number },
  src: number,
): Statement {
  return {
    operation: { kind: "atomic", op, bits },
    fields: { dst: to.register, offset: to.offset, src },
  };
}

/** Reads `r1 += r2` and the like. */
function update(line: Cursor, left: Register): Statement {
  const op = ALU_BY_SIGN.get(line.expect(ALU_SIGN, "an operator")[0])!;
  const { source, fields } = operand(line, left.bits);
  const operation = { kind: "alu", op, bits: left.bits, source } as const;
  return { operation, fields: { ...fields, dst: left.number } };
}

/** Reads what follows `r1 =`. */
function assignment(line: Cursor, left: Register): Statement {
  const { number: dst, bits } = left;
  if (line.take(/-(?=\s*[rw]\d)/y) !== null) {
    same(line, left);
    return { operation: { kind: "neg", bits }, fields: { dst } };
  }
  const from = line.take(/\(\s*s(8|16|32)\s*\)/y)?.[1];
  if (from !== undefined) {
    if (Number(from) === bits) line.fail("a sign extension needs a wider target");
    const operation = { kind: "movsx", from: Number(from) as 8 | 16 | 32, bits } as const;
    return { operation, fields: { dst, src: registerOf(line, bits) } };
  }
  if (line.accept("*")) return load(line, left);
  const reference = bits === 64 ? line.take(REFERENCE) : null;
  if (reference !== null) {
    const imm = Number(reference[1] ?? 0);
    if (imm !== (imm | 0)) line.fail(`the addend ${imm} has more than 32 bits`);
    return { operation: { kind: "wide", value: "value" }, fields: { dst, imm } };
  }
  const word = line.sees(/[rw]\d/y) ? null : line.take(WORD);
  if (word !== null) return named(line, left, word[0]);
  return value(line, left);
}

/** Reads the register of the left side again. */
function same(line: Cursor, left: Register): void {
  const { column } = line;
  if (registerOf(line, left.bits) !== left.number)
    line.fail("both sides are the same register", column);
}

function load(line: Cursor, left: Register): Statement {
  const { signed, bits } = pointer(line);
  if (line.accept("skb")) return packet(line, left, bits);
  if (signed && bits === 64) line.fail("there is no sign-extending load of 64 bits");
  // clang writes the w name of a register for loads that clear the upper half.
  if (left.bits === 32 && (signed || bits === 64)) line.fail("this load writes an r register");
  const from = place(line);
  const operation: Operation = { kind: "load", size: sizeOf(bits), signed };
  return { operation, fields: { dst: left.number, src: from.register, offset: from.offset } };
}

/** After `r0 = *(u8 *)skb`: `[12]`, `[r1]`, `[r1 + 4]` or, in the kernel's form, `[r1 + -4]`. */
function packet(line: Cursor, left: Register, bits: number): Statement {
  if (left.number !== 0 || bits === 64)
    line.fail("packet loads are r0 = *(u8, u16 or u32 *)skb[…]");
  line.need("[");
  const indirect = line.sees(/r\d/y);
  const src = indirect ? { src: wideRegister(line) } : {};
  if (indirect) line.take(/\+(?=\s*-)/y);
  const imm = line.sees(/\]/y) ? 0 : line.immediate();
  line.need("]");
  return {
    operation: { kind: "packet", size: sizeOf(bits) as 1 | 2 | 4, indirect },
    fields: { imm, ...src },
  };
}

/** Byte swaps, fetching atomics, and 64-bit loads with a meaning. */
function named(line: Cursor, left: Register, word: string): Statement {
  const swap = /^(le|be|bswap)(16|32|64)$/.exec(word);
  if (swap !== null) {
    if (left.bits === 32) line.fail("byte swaps are written with r registers");
    same(line, left);
    const to: SwapTo = swap[1] === "bswap" ? "swap" : (swap[1] as SwapTo);
    const width = Number(swap[2]) as 16 | 32 | 64;
    return { operation: { kind: "swap", to, width }, fields: { dst: left.number } };
  }
  if (Object.hasOwn(WIDE_KINDS, word) && word !== "value") return wideKind(line, left, word);
  // atomic_fetch_add; the kernel's atomic64_fetch_add and
  // atomic64_xchg; LLVM's xchg_64 and cmpxchg32_32.
  const op = word.replace(/^atomic(?:64)?_/, "").replace(/(?:32_32|_64)$/, "");
  const fetches = /^(?:fetch_\w+|xchg|cmpxchg)$/.test(op) && Object.hasOwn(ATOMIC_OPS, op);
  return fetches
    ? fetching(line, left, op as AtomicOp)
    : line.fail(`"${word}" is not an operation`, line.column);
}

function wideKind(line: Cursor, left: Register, word: string): Statement {
  const kind = word as WideKind;
  line.need("(");
  const imm = line.immediate();
  const fields = { dst: left.number, imm };
  const operation = { kind: "wide", value: kind } as const;
  if (!WIDE_KINDS[kind].high) {
    line.need(")");
    return { operation, fields };
  }
  line.need(",");
  const high = line.immediate();
  line.need(")");
  return { operation, fields: { ...fields, high } };
}

/** `r2 = xchg((u64 *)(r1 + 0), r2)`, `r0 = cmpxchg((u64 *)(r1 + 0), r0, r2)`. */
function fetching(line: Cursor, left: Register, op: AtomicOp): Statement {
  line.need("(");
  const typed = line.sees(/\(/y);
  const { column } = line;
  const bits = typed ? atomicBits(line) : left.bits;
  if (bits !== left.bits) line.fail(`the result has ${left.bits} bits, the memory ${bits}`, column);
  const to = typed ? place(line) : address(line);
  line.need(",");
  if (op === "cmpxchg") {
    if (left.number !== 0) line.fail("cmpxchg returns into r0 or w0", 1);
    same(line, left);
    line.need(",");
    const src = registerOf(line, bits);
    line.need(")");
    return atomic(op, bits, to, src);
  }
  same(line, left);
  line.need(")");
  return atomic(op, bits, to, left.number);
}

/** A register, an immediate, or 64 bits with `ll`. */
function value(line: Cursor, left: Register): Statement {
  const { number: dst, bits } = left;
  if (line.sees(/[+-]?\w+\s+ll\b/y)) {
    if (bits === 32) line.fail("64-bit immediates go to r registers");
    const halves = line.wide();
    line.need("ll");
    return { operation: { kind: "wide", value: "value" }, fields: { dst, ...halves } };
  }
  const { source, fields } = operand(line, bits);
  return { operation: { kind: "alu", op: "mov", bits, source }, fields: { ...fields, dst } };
}
