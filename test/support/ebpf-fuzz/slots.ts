/** Code as lists of slots, with functions as targets of calls: the elements of random programs. */
import { CLASS } from "../../../src/ebpf/opcode.ts";

/** One slot of eight bytes. `call`: the called function. */
export interface Slot {
  readonly code: number;
  readonly dst: number;
  readonly src: number;
  readonly off: number;
  readonly imm: number;
  readonly call?: FunctionBody;
}

export interface FunctionBody {
  slots: readonly Slot[];
}

export const slot = (
  code: number,
  dst = 0,
  src = 0,
  off = 0,
  imm = 0,
  call?: FunctionBody,
): Slot => (call === undefined ? { code, dst, src, off, imm } : { code, dst, src, off, imm, call });

export const REGISTER = 0x08;
export const CALL = 0x85;
export const EXIT = slot(0x95);
export const GOTO = 0x05;
export const SIZE_CODE = { 1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18 } as const;
export type Size = keyof typeof SIZE_CODE;
export const SIZES: readonly Size[] = [1, 2, 4, 8];
export const MEM = 0x60;
export const MEMSX = 0x80;
export const ATOMIC = 0xc0;
export const FP = 10;

export const load = (size: Size, dst: number, src: number, off: number, signed = false): Slot =>
  slot((signed ? MEMSX : MEM) | SIZE_CODE[size] | CLASS.LDX, dst, src, off);
export const store = (size: Size, dst: number, src: number, off: number): Slot =>
  slot(MEM | SIZE_CODE[size] | CLASS.STX, dst, src, off);
export const storeImm = (size: Size, dst: number, off: number, imm: number): Slot =>
  slot(MEM | SIZE_CODE[size] | CLASS.ST, dst, 0, off, imm);
export const mov = (dst: number, src: number): Slot => slot(0xbf, dst, src);
export const movImm = (dst: number, imm: number): Slot => slot(0xb7, dst, 0, 0, imm);
export const addImm = (dst: number, imm: number): Slot => slot(0x07, dst, 0, 0, imm);

/** Returns the called functions in the order of their first call, the program first. */
function functionsOf(program: FunctionBody): FunctionBody[] {
  const found = [program];
  for (let n = 0; n < found.length; n++) {
    for (const { call } of found[n]!.slots) {
      if (call !== undefined && !found.includes(call)) found.push(call);
    }
  }
  return found;
}

export function encodeSlots(program: FunctionBody): Uint8Array {
  const functions = functionsOf(program);
  const starts = new Map<FunctionBody, number>();
  let total = 0;
  for (const fn of functions) {
    starts.set(fn, total);
    total += fn.slots.length;
  }
  const bytes = new Uint8Array(total * 8);
  const view = new DataView(bytes.buffer);
  functions
    .flatMap((fn) => fn.slots)
    .forEach(({ code, dst, src, off, imm, call }, n) => {
      view.setUint8(8 * n, code);
      view.setUint8(8 * n + 1, dst | (src << 4));
      view.setInt16(8 * n + 2, off, true);
      view.setInt32(8 * n + 4, call === undefined ? imm : starts.get(call)! - n - 1, true);
    });
  return bytes;
}
