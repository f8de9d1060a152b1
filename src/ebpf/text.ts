/**
 * Programs as text, in the dialect of clang and of the kernel's verifier: `r0 = *(u64 *)(r1 + 8)`.
 * `assembleText` reads the output of `disassemble` back to the same bytes.
 *
 *     r1 += r2      w1 s/= 3      r0 = -r0      r0 = (s8)r1      r0 = be16 r0      r0 = bswap32 r0
 *     if r1 s< 5 goto +3          if w1 & w2 goto -2             goto +1           gotol +70000
 *     r0 = *(s16 *)(r1 - 2)       *(u32 *)(r10 - 4) = 7          r1 = 0x1122334455667788 ll
 *     lock *(u64 *)(r1 + 0) += r2             r2 = atomic_fetch_or((u32 *)(r1 + 4), r2)
 *     r2 = xchg((u64 *)(r1 + 0), r2)          r0 = cmpxchg((u64 *)(r1 + 0), r0, r2)
 *     call 12       call pc+3     call btf 7    callx r1         exit
 */
import { decodeProgram, type Instruction, wideValue } from "./instruction.ts";
import { type AtomicOp, type Bits, WIDE_KINDS, type WideKind } from "./opcode.ts";
import type { Program, SourceLine } from "./program.ts";
import { ALU_SIGNS, JUMP_SIGNS, LOCK_SIGNS } from "./text-signs.ts";

export { assembleText } from "./text-reader.ts";

const register = (n: number, bits: Bits): string => `${bits === 64 ? "r" : "w"}${n}`;
const signed = (n: number): string => (n < 0 ? `${n}` : `+${n}`);
const at = (n: number, offset: number): string =>
  `r${n} ${offset < 0 ? "-" : "+"} ${Math.abs(offset)}`;
const memory = (letter: "u" | "s", bits: number, n: number, offset: number): string =>
  `*(${letter}${bits} *)(${at(n, offset)})`;

/**
 * Formats one instruction, without its position.
 * @param reference a loader's reference
 */
export function formatInstruction(i: Instruction, reference?: string): string {
  const { operation } = i.encoding;
  if (reference !== undefined && operation.kind === "wide") return `r${i.dst} = ${reference} ll`;
  if (reference !== undefined && operation.kind === "call") return `call ${reference}`;
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
      // llvm-mc accepts a register alone; with an offset, this is the kernel's form.
      const index = i.imm === 0 ? `r${i.src}` : `r${i.src} + ${i.imm}`;
      const where = operation.indirect ? index : `${i.imm}`;
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

/** Returns the program as lines, each with its slot. */
export function disassemble(code: Uint8Array, references?: Program["references"]): string[] {
  return decodeProgram(code).map((i) => {
    const text = formatInstruction(i, references?.get(i.index));
    return `${String(i.index).padStart(4)}: ${text}`;
  });
}

/**
 * Disassembles a program. With `source`, each instruction that begins a new source line has that
 * line before it, as a comment.
 */
export function disassembleProgram(program: Program, options: { source?: boolean } = {}): string[] {
  let last: SourceLine | undefined;
  const instructions = disassemble(program.code, program.references);
  if (options.source !== true) return instructions;
  return instructions.flatMap((instruction) => {
    const line = program.lines?.get(Number.parseInt(instruction, 10));
    if (line === undefined || (line.line === last?.line && line.file === last.file))
      return [instruction];
    last = line;
    return [`; ${line.file}:${line.line}: ${line.text}`, instruction];
  });
}
