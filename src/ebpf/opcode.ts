/**
 * The instruction set of RFC 9669 as data: one row per encoding. Decoder, assemblers, disassembler
 * and interpreter read these rows, so each instruction is defined once.
 *
 *     opcode, 8 bits      arithmetic, jumps:  operation (4) | source (1) | class (3)
 *                         loads, stores:      mode (3) | size (2) | class (3)
 */

/** Low three bits of an opcode (RFC 9669, section 3). */
export const CLASS = { LD: 0, LDX: 1, ST: 2, STX: 3, ALU: 4, JMP: 5, JMP32: 6, ALU64: 7 } as const;

const SOURCE_REGISTER = 0x08;
const SIZE_BITS = { 4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18 } as const;
const MODE = { IMM: 0x00, ABS: 0x20, IND: 0x40, MEM: 0x60, MEMSX: 0x80, ATOMIC: 0xc0 } as const;

/** Number of bytes that a memory access touches. */
export type AccessSize = 1 | 2 | 4 | 8;
/** Width in bits of arithmetic, comparisons and atomics. */
export type Bits = 32 | 64;
/** Source of the second operand. */
export type Source = "imm" | "reg";

/**
 * Two-operand arithmetic: the high four bits of the opcode,
 * and the value of `offset` that selects it.
 */
export const ALU_OPS = {
  add: { code: 0x00, offset: 0 },
  sub: { code: 0x10, offset: 0 },
  mul: { code: 0x20, offset: 0 },
  div: { code: 0x30, offset: 0 },
  sdiv: { code: 0x30, offset: 1 },
  or: { code: 0x40, offset: 0 },
  and: { code: 0x50, offset: 0 },
  lsh: { code: 0x60, offset: 0 },
  rsh: { code: 0x70, offset: 0 },
  mod: { code: 0x90, offset: 0 },
  smod: { code: 0x90, offset: 1 },
  xor: { code: 0xa0, offset: 0 },
  mov: { code: 0xb0, offset: 0 },
  arsh: { code: 0xc0, offset: 0 },
} as const;
export type AluOp = keyof typeof ALU_OPS;

/** Conditional jumps: the high four bits of the opcode. `s…` compares as signed. */
export const JUMP_OPS = {
  eq: 0x10,
  gt: 0x20,
  ge: 0x30,
  set: 0x40,
  ne: 0x50,
  sgt: 0x60,
  sge: 0x70,
  lt: 0xa0,
  le: 0xb0,
  slt: 0xc0,
  sle: 0xd0,
} as const;
export type JumpOp = keyof typeof JUMP_OPS;

/** Atomic operations: the value of `imm` that selects each (RFC 9669, section 5.3). */
export const ATOMIC_OPS = {
  add: 0x00,
  or: 0x40,
  and: 0x50,
  xor: 0xa0,
  fetch_add: 0x01,
  fetch_or: 0x41,
  fetch_and: 0x51,
  fetch_xor: 0xa1,
  xchg: 0xe1,
  cmpxchg: 0xf1,
} as const;
export type AtomicOp = keyof typeof ATOMIC_OPS;

/** Meanings of a wide load: the value of `src`. `high`: the second half is used. */
export const WIDE_KINDS = {
  value: { src: 0, high: true },
  map_by_fd: { src: 1, high: false },
  map_val_by_fd: { src: 2, high: true },
  var_addr: { src: 3, high: false },
  code_addr: { src: 4, high: false },
  map_by_idx: { src: 5, high: false },
  map_val_by_idx: { src: 6, high: true },
} as const;
export type WideKind = keyof typeof WIDE_KINDS;

export type CallTarget = "helper" | "local" | "btf" | "register";
export type SwapTo = "le" | "be" | "swap";

/** The meaning of an instruction, without its operand fields. */
export type Operation =
  | { readonly kind: "alu"; readonly op: AluOp; readonly bits: Bits; readonly source: Source }
  | { readonly kind: "movsx"; readonly from: 8 | 16 | 32; readonly bits: Bits }
  | { readonly kind: "neg"; readonly bits: Bits }
  | { readonly kind: "swap"; readonly to: SwapTo; readonly width: 16 | 32 | 64 }
  | { readonly kind: "jump"; readonly op: JumpOp; readonly bits: Bits; readonly source: Source }
  | { readonly kind: "goto"; readonly long: boolean }
  | { readonly kind: "call"; readonly target: CallTarget }
  | { readonly kind: "exit" }
  | { readonly kind: "load"; readonly size: AccessSize; readonly signed: boolean }
  | { readonly kind: "store"; readonly size: AccessSize; readonly source: Source }
  | { readonly kind: "atomic"; readonly op: AtomicOp; readonly bits: Bits }
  | { readonly kind: "wide"; readonly value: WideKind }
  | { readonly kind: "packet"; readonly size: 1 | 2 | 4; readonly indirect: boolean };

/** Fields of an instruction besides the opcode; `high` is the immediate of a second slot. */
export type FieldName = "dst" | "src" | "offset" | "imm" | "high";

/** Conformance groups of RFC 9669, section 2.4; `callx` and `packet` are outside base64. */
export type Group =
  | "base32"
  | "base64"
  | "divmul32"
  | "divmul64"
  | "atomic32"
  | "atomic64"
  | "callx"
  | "packet";

/** One encoding. Fields that are neither used nor the selector must be zero. */
export interface Encoding {
  readonly opcode: number;
  readonly operation: Operation;
  readonly group: Group;
  /** Operand fields in use. */
  readonly uses: readonly FieldName[];
  /** The field that distinguishes encodings with the same opcode. */
  readonly selector?: { readonly field: FieldName; readonly value: number };
}

const SIZES: readonly AccessSize[] = [1, 2, 4, 8];
const BITS: readonly Bits[] = [32, 64];
const SOURCES: readonly Source[] = ["imm", "reg"];

const sourceBit = (source: Source): number => (source === "reg" ? SOURCE_REGISTER : 0);
const aluClass = (bits: Bits): number => (bits === 64 ? CLASS.ALU64 : CLASS.ALU);
const jumpClass = (bits: Bits): number => (bits === 64 ? CLASS.JMP : CLASS.JMP32);
const base = (bits: Bits): Group => (bits === 64 ? "base64" : "base32");
const keys = <K extends string>(table: Readonly<Record<K, unknown>>): K[] =>
  Object.keys(table) as K[];

function aluGroup(op: AluOp, bits: Bits): Group {
  const divides = ["mul", "div", "sdiv", "mod", "smod"].includes(op);
  return divides ? (bits === 64 ? "divmul64" : "divmul32") : base(bits);
}

function* arithmetic(): Generator<Encoding> {
  for (const bits of BITS) {
    for (const op of keys(ALU_OPS)) {
      const { code, offset } = ALU_OPS[op];
      for (const source of SOURCES) {
        yield {
          opcode: code | sourceBit(source) | aluClass(bits),
          operation: { kind: "alu", op, bits, source },
          group: aluGroup(op, bits),
          uses: ["dst", source === "reg" ? "src" : "imm"],
          selector: { field: "offset", value: offset },
        };
      }
    }
    for (const from of bits === 64 ? ([8, 16, 32] as const) : ([8, 16] as const)) {
      yield {
        opcode: ALU_OPS.mov.code | SOURCE_REGISTER | aluClass(bits),
        operation: { kind: "movsx", from, bits },
        group: base(bits),
        uses: ["dst", "src"],
        selector: { field: "offset", value: from },
      };
    }
    yield {
      opcode: 0x80 | aluClass(bits),
      operation: { kind: "neg", bits },
      group: base(bits),
      uses: ["dst"],
    };
  }
}

function* byteSwaps(): Generator<Encoding> {
  const forms = { le: 0xd0 | CLASS.ALU, be: 0xd8 | CLASS.ALU, swap: 0xd0 | CLASS.ALU64 } as const;
  for (const to of keys(forms)) {
    for (const width of [16, 32, 64] as const) {
      yield {
        opcode: forms[to],
        operation: { kind: "swap", to, width },
        group: width === 64 ? "base64" : "base32",
        uses: ["dst"],
        selector: { field: "imm", value: width },
      };
    }
  }
}

function* jumps(): Generator<Encoding> {
  for (const bits of BITS) {
    for (const op of keys(JUMP_OPS)) {
      for (const source of SOURCES) {
        yield {
          opcode: JUMP_OPS[op] | sourceBit(source) | jumpClass(bits),
          operation: { kind: "jump", op, bits, source },
          group: base(bits),
          uses: ["dst", source === "reg" ? "src" : "imm", "offset"],
        };
      }
    }
  }
  const goto = (long: boolean): Operation => ({ kind: "goto", long });
  yield { opcode: CLASS.JMP, operation: goto(false), group: "base32", uses: ["offset"] };
  yield { opcode: CLASS.JMP32, operation: goto(true), group: "base32", uses: ["imm"] };
  for (const [value, target] of (["helper", "local", "btf"] as const).entries()) {
    yield {
      opcode: 0x85,
      operation: { kind: "call", target },
      group: "base32",
      uses: ["imm"],
      selector: { field: "src", value },
    };
  }
  // Clang before version 19 put the register into `imm`; the RFC has it in `dst`.
  yield {
    opcode: 0x8d,
    operation: { kind: "call", target: "register" },
    group: "callx",
    uses: ["dst"],
  };
  yield { opcode: 0x95, operation: { kind: "exit" }, group: "base32", uses: [] };
}

function* memory(): Generator<Encoding> {
  for (const size of SIZES) {
    const group = size === 8 ? "base64" : "base32";
    const bits = SIZE_BITS[size];
    yield {
      opcode: MODE.MEM | bits | CLASS.LDX,
      operation: { kind: "load", size, signed: false },
      group,
      uses: ["dst", "src", "offset"],
    };
    yield {
      opcode: MODE.MEM | bits | CLASS.ST,
      operation: { kind: "store", size, source: "imm" },
      group,
      uses: ["dst", "offset", "imm"],
    };
    yield {
      opcode: MODE.MEM | bits | CLASS.STX,
      operation: { kind: "store", size, source: "reg" },
      group,
      uses: ["dst", "src", "offset"],
    };
    if (size === 8) continue;
    yield {
      opcode: MODE.MEMSX | bits | CLASS.LDX,
      operation: { kind: "load", size, signed: true },
      group: "base64",
      uses: ["dst", "src", "offset"],
    };
    yield {
      opcode: MODE.ABS | bits | CLASS.LD,
      operation: { kind: "packet", size, indirect: false },
      group: "packet",
      uses: ["imm"],
    };
    yield {
      opcode: MODE.IND | bits | CLASS.LD,
      operation: { kind: "packet", size, indirect: true },
      group: "packet",
      uses: ["src", "imm"],
    };
  }
}

function* atomics(): Generator<Encoding> {
  for (const bits of BITS) {
    for (const op of keys(ATOMIC_OPS)) {
      yield {
        opcode: MODE.ATOMIC | SIZE_BITS[bits === 64 ? 8 : 4] | CLASS.STX,
        operation: { kind: "atomic", op, bits },
        group: bits === 64 ? "atomic64" : "atomic32",
        uses: ["dst", "src", "offset"],
        selector: { field: "imm", value: ATOMIC_OPS[op] },
      };
    }
  }
}

/** Opcode of the only instruction that takes two slots. */
export const WIDE_OPCODE = MODE.IMM | SIZE_BITS[8] | CLASS.LD;

function* wideLoads(): Generator<Encoding> {
  for (const value of keys(WIDE_KINDS)) {
    const { src, high } = WIDE_KINDS[value];
    yield {
      opcode: WIDE_OPCODE,
      operation: { kind: "wide", value },
      group: "base64",
      uses: high ? ["dst", "imm", "high"] : ["dst", "imm"],
      selector: { field: "src", value: src },
    };
  }
}

/** Every encoding of the instruction set. */
export const ENCODINGS: readonly Encoding[] = [
  ...arithmetic(),
  ...byteSwaps(),
  ...jumps(),
  ...memory(),
  ...atomics(),
  ...wideLoads(),
];

const byOpcode: Encoding[][] = Array.from({ length: 256 }, () => []);
for (const encoding of ENCODINGS) byOpcode[encoding.opcode]?.push(encoding);

/** Encodings that share an opcode byte; empty for unknown opcodes. */
export function encodingsOf(opcode: number): readonly Encoding[] {
  return byOpcode[opcode] ?? [];
}

function keyOf(operation: Operation): string {
  return Object.values(operation).join(" ");
}

const byOperation = new Map(ENCODINGS.map((e) => [keyOf(e.operation), e]));

/**
 * Returns the encoding of an operation. Defined for all values of
 * `Operation` except 32-bit movsx from 32.
 */
export function encodingFor(operation: Operation): Encoding {
  const encoding = byOperation.get(keyOf(operation));
  if (encoding === undefined) throw new RangeError(`no encoding of "${keyOf(operation)}"`);
  return encoding;
}
