/**
 * The assembler dialect of the eBPF conformance suite
 * (github.com/Alan-Jowett/bpf_conformance): destination first.
 *
 *     mov %r0, 1          add32 %r1, %r2      neg %r3       movsx1632 %r0, %r1     be16 %r0
 *     ldxdw %r0, [%r1+8]  ldxsw %r0, [%r1]    stb [%r10-1], 7    stxw [%r10-4], %r2
 *     lddw %r0, 0x1122334455667788            lddw %r1, map_by_fd(3)      swap32 %r0
 *     jne %r0, %r1, label     jslt32 %r0, -1, +3    ja label    ja32 label    exit
 *     call 5     call local label     call runtime 7     call %r2
 *     lock add [%r10-8], %r1     lock fetch or32 [%r1], %r2     lock cmpxchg [%r10-8], %r1
 *
 * The first `exit` has the label `exit`. The percent sign is optional.
 */
import {
  assembleDialect,
  type Cursor,
  type Dialect,
  registerNumber,
  type Statement,
} from "../assembly.ts";
import type { Fields } from "../instruction.ts";
import {
  type AccessSize,
  ALU_OPS,
  type AluOp,
  ATOMIC_OPS,
  type AtomicOp,
  type Bits,
  JUMP_OPS,
  type JumpOp,
  type Operation,
  type SwapTo,
  WIDE_KINDS,
  type WideKind,
} from "../opcode.ts";

const SIZES: Readonly<Record<string, AccessSize>> = { b: 1, h: 2, w: 4, dw: 8 };
const MNEMONIC = /[a-z_][a-z0-9_]*/y;
const REGISTER = /%?r(\d{1,2})(?!\w)/y;

/** Assembles text in the suite's dialect. @throws TextError */
export function assembleSuiteText(text: string | readonly string[]): Uint8Array {
  return assembleDialect(text, DIALECT);
}

const DIALECT: Dialect = { comment: /#/, statement: readStatement, exitLabel: "exit" };

/** The statement forms, tried in order on the mnemonic. */
const FORMS: readonly (readonly [RegExp, (line: Cursor, match: RegExpExecArray) => Statement])[] = [
  [/^exit$/, () => ({ operation: { kind: "exit" }, fields: {} })],
  [/^lddw$/, wideLoad],
  [/^ldx(s?)(b|h|w|dw)$/, load],
  [/^st(x?)(b|h|w|dw)$/, store],
  [/^lock$/, atomic],
  [/^call$/, call],
  [/^ja(32)?$/, (line, [, long]) => goto(line, long !== undefined)],
  [/^(be|le|swap|bswap)(16|32|64)$/, swap],
  [/^movsx(8|16|32)(32|64)$/, movsx],
  [/^neg(32|64)?$/, (line, [, bits]) => one(line, { kind: "neg", bits: bitsOf(bits) })],
  [new RegExp(`^(${Object.keys(ALU_OPS).join("|")})(32|64)?$`), arithmetic],
  [new RegExp(`^j(${Object.keys(JUMP_OPS).join("|")})(32)?$`), jump],
];

function readStatement(line: Cursor): Statement {
  const { column } = line;
  const [mnemonic] = line.expect(MNEMONIC, "an instruction");
  for (const [pattern, read] of FORMS) {
    const match = pattern.exec(mnemonic);
    if (match !== null) return read(line, match);
  }
  return line.fail(`unknown instruction ${mnemonic}`, column);
}

const bitsOf = (suffix: string | undefined): Bits => (suffix === "32" ? 32 : 64);

function register(line: Cursor): number {
  const { column } = line;
  return registerNumber(line, line.expect(REGISTER, "a register")[1]!, column);
}

function comma(line: Cursor): void {
  line.need(",");
}

/** Reads a register or an immediate. */
function operand(line: Cursor): { source: "reg" | "imm"; fields: Partial<Fields> } {
  const { column } = line;
  const name = line.take(REGISTER);
  return name !== null
    ? { source: "reg", fields: { src: registerNumber(line, name[1]!, column) } }
    : { source: "imm", fields: { imm: immediate(line) } };
}

/**
 * Hexadecimal numbers are 32 bits of either sign; decimal
 * ones are signed, as in the suite's runner.
 */
function immediate(line: Cursor): number {
  if (line.sees(/[+-]?0[xX]/y)) return line.immediate();
  return Number(line.number(-0x8000_0000n, 0x7fff_ffffn, "immediate"));
}

/** Reads `[%r1+8]`. */
function place(line: Cursor): { register: number; offset: number } {
  line.need("[");
  const base = register(line);
  if (line.accept("]")) return { register: base, offset: 0 };
  const offset = line.offset();
  line.need("]");
  return { register: base, offset };
}

/** Reads `+3`, `-2` or a label. */
function target(line: Cursor, distance: "offset" | "imm"): Pick<Statement, "fields" | "target"> {
  if (!line.sees(/[+-]/y)) return { fields: {}, target: line.label() };
  const value = distance === "offset" ? line.offset("distance") : line.immediate("distance");
  return { fields: { [distance]: value } };
}

function one(line: Cursor, operation: Operation): Statement {
  return { operation, fields: { dst: register(line) } };
}

function swap(line: Cursor, [, name, width]: RegExpExecArray): Statement {
  const to: SwapTo = name === "be" || name === "le" ? name : "swap";
  return one(line, { kind: "swap", to, width: Number(width) as 16 | 32 | 64 });
}

function movsx(line: Cursor, [, from, bits]: RegExpExecArray): Statement {
  if (from === bits) line.fail("a sign extension needs a wider target", 1);
  const dst = register(line);
  comma(line);
  const operation = {
    kind: "movsx",
    from: Number(from) as 8 | 16 | 32,
    bits: bitsOf(bits),
  } as const;
  return { operation, fields: { dst, src: register(line) } };
}

function arithmetic(line: Cursor, [, op, bits]: RegExpExecArray): Statement {
  const dst = register(line);
  comma(line);
  const { source, fields } = operand(line);
  const operation = { kind: "alu", op: op as AluOp, bits: bitsOf(bits), source } as const;
  return { operation, fields: { ...fields, dst } };
}

function jump(line: Cursor, [, op, bits]: RegExpExecArray): Statement {
  const dst = register(line);
  comma(line);
  const { source, fields } = operand(line);
  comma(line);
  const to = target(line, "offset");
  const operation = { kind: "jump", op: op as JumpOp, bits: bitsOf(bits), source } as const;
  return { ...to, operation, fields: { ...to.fields, ...fields, dst } };
}

function goto(line: Cursor, long: boolean): Statement {
  return { ...target(line, long ? "imm" : "offset"), operation: { kind: "goto", long } };
}

function call(line: Cursor): Statement {
  const { column } = line;
  const name = line.take(REGISTER);
  if (name !== null) {
    const dst = registerNumber(line, name[1]!, column);
    return { operation: { kind: "call", target: "register" }, fields: { dst } };
  }
  const mode = line.take(/(local|runtime|helper)(?!\w)/y)?.[1];
  if (mode === "local") {
    return { ...target(line, "imm"), operation: { kind: "call", target: "local" } };
  }
  const kind = mode === "runtime" ? "btf" : "helper";
  return { operation: { kind: "call", target: kind }, fields: { imm: line.immediate(kind) } };
}

function load(line: Cursor, [, sign, size]: RegExpExecArray): Statement {
  if (sign === "s" && size === "dw") line.fail("there is no sign-extending load of 8 bytes", 1);
  const dst = register(line);
  comma(line);
  const from = place(line);
  return {
    operation: { kind: "load", size: SIZES[size!]!, signed: sign === "s" },
    fields: { dst, src: from.register, offset: from.offset },
  };
}

function store(line: Cursor, [, x, size]: RegExpExecArray): Statement {
  const to = place(line);
  comma(line);
  const source = x === "x" ? "reg" : "imm";
  const value = source === "reg" ? { src: register(line) } : { imm: immediate(line) };
  return {
    operation: { kind: "store", size: SIZES[size!]!, source },
    fields: { ...value, dst: to.register, offset: to.offset },
  };
}

function atomic(line: Cursor): Statement {
  const fetch = line.take(/fetch(?!\w)/y) !== null;
  const { column } = line;
  const [text, plain, bits] = line.expect(/([a-z]+)(32)?(?!\w)/y, "an atomic operation");
  // Exchanges always fetch.
  const op = fetch && !plain!.endsWith("xchg") ? `fetch_${plain}` : plain!;
  if (!Object.hasOwn(ATOMIC_OPS, op)) line.fail(`unknown atomic operation ${text}`, column);
  const to = place(line);
  comma(line);
  return {
    operation: { kind: "atomic", op: op as AtomicOp, bits: bitsOf(bits) },
    fields: { dst: to.register, offset: to.offset, src: register(line) },
  };
}

function wideLoad(line: Cursor): Statement {
  const dst = register(line);
  comma(line);
  const { column } = line;
  const name = line.take(/[a-z_]+(?=\()/y)?.[0];
  if (name === undefined) {
    return { operation: { kind: "wide", value: "value" }, fields: { dst, ...line.wide() } };
  }
  if (!Object.hasOwn(WIDE_KINDS, name)) line.fail(`unknown 64-bit load ${name}`, column);
  line.need("(");
  const imm = line.immediate();
  const high = line.accept(",") ? { high: line.immediate() } : {};
  line.need(")");
  return { operation: { kind: "wide", value: name as WideKind }, fields: { dst, imm, ...high } };
}
