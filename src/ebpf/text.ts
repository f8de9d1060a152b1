/**
 * Programs as text, in the dialect of clang and of the kernel's verifier: `r0 = *(u64 *)(r1 + 8)`.
 * What `disassemble` writes, `assembleText` reads back to the same bytes.
 *
 *     r1 += r2      w1 s/= 3      r0 = -r0      r0 = (s8)r1      r0 = be16 r0      r0 = bswap32 r0
 *     if r1 s< 5 goto +3          if w1 & w2 goto -2             goto +1           gotol +70000
 *     r0 = *(s16 *)(r1 - 2)       *(u32 *)(r10 - 4) = 7          r1 = 0x1122334455667788 ll
 *     lock *(u64 *)(r1 + 0) += r2                                r2 = atomic_fetch_or((u32 *)(r1 + 4), r2)
 *     r2 = xchg((u64 *)(r1 + 0), r2)                             r0 = cmpxchg((u64 *)(r1 + 0), r0, r2)
 *     call 12       call pc+3     call btf 7    callx r1         exit
 */
import { EbpfError } from "./errors.ts";
import {
  decodeProgram,
  encodeProgram,
  type Fields,
  type Instruction,
  makeInstruction,
  slotsOf,
  wideValue,
} from "./instruction.ts";
import {
  type AccessSize,
  ALU_OPS,
  type AluOp,
  ATOMIC_OPS,
  type AtomicOp,
  type Bits,
  type JumpOp,
  type Operation,
  type SwapTo,
  WIDE_KINDS,
  type WideKind,
} from "./opcode.ts";

import type { Program, SourceLine } from "./program.ts";

const ALU_SIGNS: Readonly<Record<AluOp, string>> = {
  ...{ add: "+=", sub: "-=", mul: "*=", div: "/=", sdiv: "s/=", or: "|=", and: "&=" },
  ...{ lsh: "<<=", rsh: ">>=", mod: "%=", smod: "s%=", xor: "^=", mov: "=", arsh: "s>>=" },
};
const JUMP_SIGNS: Readonly<Record<JumpOp, string>> = {
  ...{ eq: "==", gt: ">", ge: ">=", set: "&", ne: "!=", sgt: "s>", sge: "s>=" },
  ...{ lt: "<", le: "<=", slt: "s<", sle: "s<=" },
};
/** Atomics that return nothing. */
const LOCK_SIGNS = { add: "+=", or: "|=", and: "&=", xor: "^=" } as const;

const inverse = <K extends string>(table: Readonly<Record<K, string>>): Map<string, K> =>
  new Map((Object.entries(table) as [K, string][]).map(([key, sign]) => [sign, key]));

const ALU_BY_SIGN = inverse(ALU_SIGNS);
const JUMP_BY_SIGN = inverse(JUMP_SIGNS);
const LOCK_BY_SIGN = inverse(LOCK_SIGNS);

const register = (n: number, bits: Bits): string => `${bits === 64 ? "r" : "w"}${n}`;
const signed = (n: number): string => (n < 0 ? `${n}` : `+${n}`);
const at = (n: number, offset: number): string =>
  `r${n} ${offset < 0 ? "-" : "+"} ${Math.abs(offset)}`;
const memory = (letter: "u" | "s", bits: number, n: number, offset: number): string =>
  `*(${letter}${bits} *)(${at(n, offset)})`;

/** One instruction, without its position. */
export function formatInstruction(i: Instruction): string {
  const { operation } = i.encoding;
  switch (operation.kind) {
    case "alu": {
      const { bits } = operation;
      const right = operation.source === "reg" ? register(i.src, bits) : `${i.imm}`;
      return `${register(i.dst, bits)} ${ALU_SIGNS[operation.op]} ${right}`;
    }
    case "movsx":
      return `${register(i.dst, operation.bits)} = (s${operation.from})${register(i.src, operation.bits)}`;
    case "neg":
      return `${register(i.dst, operation.bits)} = -${register(i.dst, operation.bits)}`;
    case "swap": {
      const name = operation.to === "swap" ? "bswap" : operation.to;
      return `r${i.dst} = ${name}${operation.width} r${i.dst}`;
    }
    case "jump": {
      const { bits } = operation;
      const right = operation.source === "reg" ? register(i.src, bits) : `${i.imm}`;
      const test = `${register(i.dst, bits)} ${JUMP_SIGNS[operation.op]} ${right}`;
      return `if ${test} goto ${signed(i.offset)}`;
    }
    case "goto":
      return operation.long ? `gotol ${signed(i.imm)}` : `goto ${signed(i.offset)}`;
    case "call":
      return formatCall(i, operation.target);
    case "exit":
      return "exit";
    case "load": {
      const letter = operation.signed ? "s" : "u";
      return `r${i.dst} = ${memory(letter, operation.size * 8, i.src, i.offset)}`;
    }
    case "store": {
      const right = operation.source === "reg" ? `r${i.src}` : `${i.imm}`;
      return `${memory("u", operation.size * 8, i.dst, i.offset)} = ${right}`;
    }
    case "atomic":
      return formatAtomic(i, operation.op, operation.bits);
    case "wide":
      return `r${i.dst} = ${formatWide(i, operation.value)}`;
    case "packet": {
      const where = operation.indirect ? `r${i.src} ${signed(i.imm)}` : `${i.imm}`;
      return `r0 = *(u${operation.size * 8} *)skb[${where}]`;
    }
  }
}

function formatCall(i: Instruction, target: string): string {
  if (target === "helper") return `call ${i.imm}`;
  if (target === "local") return `call pc${signed(i.imm)}`;
  return target === "btf" ? `call btf ${i.imm}` : `callx r${i.dst}`;
}

function formatAtomic(i: Instruction, op: AtomicOp, bits: Bits): string {
  const value = register(i.src, bits);
  const address = `(u${bits} *)(${at(i.dst, i.offset)})`;
  if (op in LOCK_SIGNS) {
    return `lock *${address} ${LOCK_SIGNS[op as keyof typeof LOCK_SIGNS]} ${value}`;
  }
  if (op === "cmpxchg") {
    return `${register(0, bits)} = cmpxchg(${address}, ${register(0, bits)}, ${value})`;
  }
  return `${value} = ${op === "xchg" ? op : `atomic_${op}`}(${address}, ${value})`;
}

function formatWide(i: Instruction, kind: WideKind): string {
  if (kind === "value") return `0x${wideValue(i).toString(16)} ll`;
  return WIDE_KINDS[kind].high ? `${kind}(${i.imm}, ${i.high})` : `${kind}(${i.imm})`;
}

/** The program as lines, each with the slot where its instruction stands. */
export function disassemble(code: Uint8Array): string[] {
  return decodeProgram(code).map((i) => `${String(i.index).padStart(4)}: ${formatInstruction(i)}`);
}

/**
 * The same of a program; with `source`, each instruction that begins a new source line has that line before it, as
 * a comment.
 */
export function disassembleProgram(program: Program, options: { source?: boolean } = {}): string[] {
  let last: SourceLine | undefined;
  const instructions = disassemble(program.code);
  if (options.source !== true) return instructions;
  return instructions.flatMap((instruction) => {
    const line = program.lines?.get(Number.parseInt(instruction, 10));
    if (line === undefined || (line.line === last?.line && line.file === last.file))
      return [instruction];
    last = line;
    return [`; ${line.file}:${line.line}: ${line.text}`, instruction];
  });
}

/* Reading */

const REG = "[rw](?:10|[0-9])";
const NUMBER = "-?(?:0x[0-9a-f]+|\\d+)";
const PLACE = `r(10|[0-9]) ([+-]) (${NUMBER})`;

type Groups = readonly string[];
interface Parsed {
  readonly operation: Operation;
  readonly fields: Partial<Fields>;
}

const pattern = (text: string): RegExp => new RegExp(`^${text}$`, "i");
const bitsOf = (name: string): Bits => (name.startsWith("r") ? 64 : 32);
const numberOf = (name: string): number => Number(name.slice(1));
const isRegister = (text: string): boolean => /^[rw]\d/.test(text);
const offsetOf = (sign: string, value: string): number => (sign === "-" ? -1 : 1) * Number(value);
/** `imm` and `high` hold 32 bits; written as unsigned, they mean the same bits. */
const word = (text: string): number => Number(BigInt.asIntN(32, BigInt(text)));

/** A right-hand side: a register of the same width, or a number. */
function operand(text: string): { source: "reg" | "imm"; fields: Partial<Fields> } {
  return isRegister(text)
    ? { source: "reg", fields: { src: numberOf(text) } }
    : { source: "imm", fields: { imm: integer(text) } };
}

function integer(text: string): number {
  return text.startsWith("-") ? -Number(text.slice(1)) : word(text);
}

const READERS: readonly (readonly [RegExp, (g: Groups) => Parsed | null])[] = [
  [pattern("exit"), () => ({ operation: { kind: "exit" }, fields: {} })],
  [
    pattern(`goto ([+-]\\d+)`),
    ([offset]) => ({
      operation: { kind: "goto", long: false },
      fields: { offset: Number(offset) },
    }),
  ],
  [
    pattern(`gotol ([+-]\\d+)`),
    ([imm]) => ({ operation: { kind: "goto", long: true }, fields: { imm: Number(imm) } }),
  ],
  [
    pattern(`if (${REG}) (s?[<>]=?|[=!]=|&) (${REG}|${NUMBER}) goto ([+-]\\d+)`),
    ([left, sign, right, offset]) => {
      const op = JUMP_BY_SIGN.get(sign);
      if (op === undefined || mixed(left, right)) return null;
      const { source, fields } = operand(right);
      const operation = { kind: "jump", op, bits: bitsOf(left), source } as const;
      return { operation, fields: { ...fields, dst: numberOf(left), offset: Number(offset) } };
    },
  ],
  [pattern(`call (${NUMBER})`), ([imm]) => call("helper", { imm: integer(imm) })],
  [pattern(`call pc([+-]\\d+)`), ([imm]) => call("local", { imm: Number(imm) })],
  [pattern(`call btf (${NUMBER})`), ([imm]) => call("btf", { imm: integer(imm) })],
  [pattern(`callx r(10|\\d)`), ([dst]) => call("register", { dst: Number(dst) })],
  [
    pattern(`r(10|\\d) = (0x[0-9a-f]+|\\d+) ll`),
    ([dst, value]) => {
      const high = Number(BigInt.asIntN(32, BigInt(value) >> 32n));
      return wide("value", { dst: Number(dst), imm: word(value), high });
    },
  ],
  [
    pattern(`r(10|\\d) = (map_[a-z_]+|var_addr|code_addr)\\((${NUMBER})(?:, (${NUMBER}))?\\)`),
    ([dst, kind, imm, high]) => {
      if (!(kind in WIDE_KINDS) || WIDE_KINDS[kind as WideKind].high !== (high !== undefined)) {
        return null;
      }
      const fields = { dst: Number(dst), imm: integer(imm) };
      return wide(
        kind as WideKind,
        high === undefined ? fields : { ...fields, high: integer(high) },
      );
    },
  ],
  [
    pattern(`r(10|\\d) = \\*\\(([us])(8|16|32|64) \\*\\)\\(${PLACE}\\)`),
    ([dst, letter, bits, src, sign, offset]) => ({
      operation: { kind: "load", size: sizeOf(bits), signed: letter === "s" },
      fields: { dst: Number(dst), src: Number(src), offset: offsetOf(sign, offset) },
    }),
  ],
  [
    pattern(`\\*\\(u(8|16|32|64) \\*\\)\\(${PLACE}\\) = (r(?:10|\\d)|${NUMBER})`),
    ([bits, dst, sign, offset, right]) => {
      const { source, fields } = operand(right);
      return {
        operation: { kind: "store", size: sizeOf(bits), source },
        fields: { ...fields, dst: Number(dst), offset: offsetOf(sign, offset) },
      };
    },
  ],
  [
    pattern(`lock \\*\\(u(32|64) \\*\\)\\(${PLACE}\\) ([+|&^]=) (${REG})`),
    ([bits, dst, sign, offset, op, value]) =>
      atomic(LOCK_BY_SIGN.get(op), bits, { dst, sign, offset }, value),
  ],
  [
    pattern(
      `(${REG}) = (xchg|atomic_fetch_[a-z]+)\\(\\(u(32|64) \\*\\)\\(${PLACE}\\), (${REG})\\)`,
    ),
    ([result, name, bits, dst, sign, offset, value]) => {
      const op = name.replace("atomic_", "");
      if (result !== value || !(op in ATOMIC_OPS)) return null;
      return atomic(op as AtomicOp, bits, { dst, sign, offset }, value);
    },
  ],
  [
    pattern(`([rw])0 = cmpxchg\\(\\(u(32|64) \\*\\)\\(${PLACE}\\), \\1?[rw]0, (${REG})\\)`),
    ([, bits, dst, sign, offset, value]) => atomic("cmpxchg", bits, { dst, sign, offset }, value),
  ],
  [
    pattern(`r0 = \\*\\(u(8|16|32) \\*\\)skb\\[(?:r(10|\\d) )?([+-]?\\d+)\\]`),
    ([bits, src, imm]) => ({
      operation: {
        kind: "packet",
        size: sizeOf(bits) as 1 | 2 | 4,
        indirect: src !== undefined,
      },
      fields: { imm: Number(imm), ...(src === undefined ? {} : { src: Number(src) }) },
    }),
  ],
  [
    pattern(`(${REG}) = -(${REG})`),
    ([left, right]) =>
      left !== right
        ? null
        : { operation: { kind: "neg", bits: bitsOf(left) }, fields: { dst: numberOf(left) } },
  ],
  [
    pattern(`(${REG}) = \\(s(8|16|32)\\)(${REG})`),
    ([left, from, right]) => {
      if (mixed(left, right)) return null;
      const operation = { kind: "movsx", from: Number(from) as 8, bits: bitsOf(left) } as const;
      return { operation, fields: { dst: numberOf(left), src: numberOf(right) } };
    },
  ],
  [
    pattern(`r(10|\\d) = (le|be|bswap)(16|32|64) r(10|\\d)`),
    ([dst, name, width, same]) => {
      if (dst !== same) return null;
      const to: SwapTo = name === "bswap" ? "swap" : (name as SwapTo);
      const operation = { kind: "swap", to, width: Number(width) as 16 } as const;
      return { operation, fields: { dst: Number(dst) } };
    },
  ],
  [
    pattern(`(${REG}) (s?[-+*/%|&^]=|s?>>=|<<=|=) (${REG}|${NUMBER})`),
    ([left, sign, right]) => {
      const op = ALU_BY_SIGN.get(sign);
      if (op === undefined || !(op in ALU_OPS) || mixed(left, right)) return null;
      const { source, fields } = operand(right);
      const operation = { kind: "alu", op, bits: bitsOf(left), source } as const;
      return { operation, fields: { ...fields, dst: numberOf(left) } };
    },
  ],
];

/** r with w: no instruction does that. */
function mixed(left: string, right: string): boolean {
  return isRegister(right) && left[0] !== right[0];
}

function sizeOf(bits: string): AccessSize {
  return (Number(bits) / 8) as AccessSize;
}

function call(target: "helper" | "local" | "btf" | "register", fields: Partial<Fields>): Parsed {
  return { operation: { kind: "call", target }, fields };
}

function wide(value: WideKind, fields: Partial<Fields>): Parsed {
  return { operation: { kind: "wide", value }, fields };
}

function atomic(
  op: AtomicOp | undefined,
  bits: string,
  place: { dst: string; sign: string; offset: string },
  value: string,
): Parsed | null {
  if (op === undefined || bitsOf(value) !== Number(bits)) return null;
  const fields = {
    dst: Number(place.dst),
    src: numberOf(value),
    offset: offsetOf(place.sign, place.offset),
  };
  return { operation: { kind: "atomic", op, bits: bitsOf(value) }, fields };
}

function parseLine(line: string, index: number): Instruction {
  for (const [expression, read] of READERS) {
    const match = expression.exec(line);
    const parsed = match === null ? null : read(match.slice(1));
    if (parsed !== null) return makeInstruction(parsed.operation, parsed.fields, index);
  }
  throw new EbpfError("ASSEMBLY", `"${line}" is not an instruction`, index);
}

/**
 * Assembles lines of `disassemble`'s form. Positions in front (`12:`), empty lines and what follows `;` are
 * passed over; jumps are relative.
 * @throws EbpfError ASSEMBLY with the line's text
 */
export function assembleText(text: string | readonly string[]): Uint8Array {
  const lines = typeof text === "string" ? text.split("\n") : text;
  const instructions: Instruction[] = [];
  let index = 0;
  for (const raw of lines) {
    const line = raw
      .replace(/;.*$/, "")
      .replace(/^\s*\d+:/, "")
      .trim()
      .replace(/\s+/g, " ");
    if (line === "") continue;
    const instruction = parseLine(line, index);
    instructions.push(instruction);
    index += slotsOf(instruction);
  }
  return encodeProgram(instructions);
}
