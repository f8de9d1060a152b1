/**
 * Instructions: conversion between the 8-byte (wide loads: 16-byte) wire form and a decoded form.
 */
import { EbpfError } from "./errors.ts";
import {
  type Encoding,
  encodingFor,
  encodingsOf,
  type FieldName,
  type Operation,
  WIDE_OPCODE,
} from "./opcode.ts";

/** Bytes of one slot. */
export const SLOT = 8;
/** R0..R10. */
export const REGISTERS = 11;
/** The read-only frame pointer. */
export const FRAME_POINTER = 10;

/** Operand fields as encoded: `offset` signed 16 bits, `imm` and `high` signed 32 bits. */
export interface Fields {
  readonly dst: number;
  readonly src: number;
  readonly offset: number;
  readonly imm: number;
  /** Immediate of the second slot of a wide load, otherwise 0. */
  readonly high: number;
}

export interface Instruction extends Fields {
  /** Its slot: 8-byte units from the start of the program. */
  readonly index: number;
  readonly encoding: Encoding;
}

/** Returns the slots of an instruction: 2 for wide loads, else 1. */
export function slotsOf(instruction: { readonly encoding: Encoding }): 1 | 2 {
  return instruction.encoding.opcode === WIDE_OPCODE ? 2 : 1;
}

/** Returns the target slot of a jump or local call; undefined for other instructions. */
export function targetOf(instruction: Instruction): number | undefined {
  const { operation } = instruction.encoding;
  switch (operation.kind) {
    case "jump":
      return instruction.index + 1 + instruction.offset;
    case "goto":
      return instruction.index + 1 + (operation.long ? instruction.imm : instruction.offset);
    case "call":
      return operation.target === "local" ? instruction.index + 1 + instruction.imm : undefined;
    default:
      return undefined;
  }
}

/** Returns the value of a wide load, 64 bits unsigned. */
export function wideValue(fields: Fields): bigint {
  return (BigInt(fields.high >>> 0) << 32n) | BigInt(fields.imm >>> 0);
}

const RANGES: Readonly<Record<FieldName, readonly [number, number]>> = {
  dst: [0, REGISTERS - 1],
  src: [0, REGISTERS - 1],
  offset: [-0x8000, 0x7fff],
  imm: [-0x80000000, 0x7fffffff],
  high: [-0x80000000, 0x7fffffff],
};
const FIELD_NAMES = Object.keys(RANGES) as FieldName[];

/**
 * Builds an instruction. Omitted fields are 0; selector fields are filled in.
 * @throws EbpfError ASSEMBLY if a value does not fit its field
 */
export function makeInstruction(
  operation: Operation,
  operands: Partial<Fields>,
  index = 0,
): Instruction {
  const encoding = encodingFor(operation);
  const fields = { dst: 0, src: 0, offset: 0, imm: 0, high: 0 };
  for (const name of encoding.uses) {
    const value = operands[name] ?? 0;
    const [low, high] = RANGES[name];
    if (!Number.isInteger(value) || value < low || value > high) {
      throw new EbpfError("ASSEMBLY", `${name} ${value} is not within ${low}..${high}`, index);
    }
    fields[name] = value;
  }
  if (encoding.selector !== undefined) fields[encoding.selector.field] = encoding.selector.value;
  return { ...fields, index, encoding };
}

/** @returns the wire form, 8 bytes a slot, little endian. */
export function encodeProgram(instructions: readonly Instruction[]): Uint8Array {
  const slots = instructions.reduce((sum, i) => sum + slotsOf(i), 0);
  const bytes = new Uint8Array(slots * SLOT);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const i of instructions) {
    view.setUint8(at, i.encoding.opcode);
    view.setUint8(at + 1, i.dst | (i.src << 4));
    view.setInt16(at + 2, i.offset, true);
    view.setInt32(at + 4, i.imm, true);
    if (slotsOf(i) === 2) view.setInt32(at + SLOT + 4, i.high, true);
    at += slotsOf(i) * SLOT;
  }
  return bytes;
}

/**
 * Decodes a program strictly: unknown opcodes, registers above R10 and unused fields
 * that are not zero are refused with the reason and the instruction.
 * `checkStructure` checks jump targets and the like.
 * @throws EbpfError ENCODING
 */
export function decodeProgram(code: Uint8Array): Instruction[] {
  if (code.length % SLOT !== 0) {
    throw new EbpfError("ENCODING", `${code.length} bytes are not a multiple of ${SLOT}`);
  }
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength);
  const instructions: Instruction[] = [];
  for (let index = 0; index < code.length / SLOT; ) {
    const instruction = decodeAt(view, index);
    instructions.push(instruction);
    index += slotsOf(instruction);
  }
  return instructions;
}

function decodeAt(view: DataView, index: number): Instruction {
  const at = index * SLOT;
  const opcode = view.getUint8(at);
  const registers = view.getUint8(at + 1);
  const fields = {
    dst: registers & 15,
    src: registers >> 4,
    offset: view.getInt16(at + 2, true),
    imm: view.getInt32(at + 4, true),
    high: opcode === WIDE_OPCODE ? secondHalf(view, index) : 0,
  };
  const encoding = selectEncoding(opcode, fields, index);
  for (const name of FIELD_NAMES) checkField(encoding, name, fields[name], index);
  return { ...fields, index, encoding };
}

function secondHalf(view: DataView, index: number): number {
  const at = (index + 1) * SLOT;
  if (at >= view.byteLength) {
    throw new EbpfError("ENCODING", "a 64-bit load lacks its second half", index);
  }
  if (view.getUint32(at, true) !== 0) {
    throw new EbpfError(
      "ENCODING",
      "the second half of a 64-bit load has opcode, registers or offset that are not zero",
      index,
    );
  }
  return view.getInt32(at + 4, true);
}

const hex = (value: number): string => `0x${value.toString(16).padStart(2, "0")}`;

function selectEncoding(opcode: number, fields: Fields, index: number): Encoding {
  const candidates = encodingsOf(opcode);
  const first = candidates[0];
  if (first === undefined) {
    throw new EbpfError("ENCODING", `unknown opcode ${hex(opcode)}`, index);
  }
  const chosen = candidates.find(
    (e) => e.selector === undefined || fields[e.selector.field] === e.selector.value,
  );
  if (chosen !== undefined) return chosen;
  const field = first.selector?.field ?? "imm";
  throw new EbpfError(
    "ENCODING",
    `${field} ${fields[field]} selects no operation of opcode ${hex(opcode)}`,
    index,
  );
}

function checkField(encoding: Encoding, name: FieldName, value: number, index: number): void {
  if (encoding.uses.includes(name)) {
    if ((name === "dst" || name === "src") && value >= REGISTERS) {
      throw new EbpfError("ENCODING", `there is no register r${value} (${name})`, index);
    }
    return;
  }
  if (encoding.selector?.field === name || value === 0) return;
  throw new EbpfError(
    "ENCODING",
    `${name} is ${value}, but opcode ${hex(encoding.opcode)} does not use it: it must be 0`,
    index,
  );
}
