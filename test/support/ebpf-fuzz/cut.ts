/** Shrinks code that shows a failure, instruction by instruction. */
import { CLASS, WIDE_OPCODE } from "../../../src/ebpf/opcode.ts";

const SLOT = 8;
const CALL = 0x85;
const EXIT = 0x95;
const LONG_GOTO = 0x06;

/** Returns the shortest code found for which `fails` holds. It must hold for `code` itself. */
export function shrinkCode(code: Uint8Array, fails: (shorter: Uint8Array) => boolean): Uint8Array {
  let shortest = code;
  for (let again = true; again; ) {
    again = false;
    for (let n = 0; n < shortest.length / SLOT; n++) {
      const shorter = without(shortest, n);
      if (shorter === null || !fails(shorter)) continue;
      shortest = shorter;
      again = true;
      n--;
    }
  }
  return shortest;
}

/** Returns the code without instruction `n`. Jumps across it keep their targets. */
function without(code: Uint8Array, n: number): Uint8Array | null {
  const opcode = code[SLOT * n]!;
  // The second half of a wide load is removed with the first.
  if (opcode === 0) return null;
  const gone = opcode === WIDE_OPCODE ? 2 : 1;
  const shorter = new Uint8Array(code.length - SLOT * gone);
  shorter.set(code.subarray(0, SLOT * n));
  shorter.set(code.subarray(SLOT * (n + gone)), SLOT * n);
  const moved = (slot: number): number => (slot > n ? Math.max(n, slot - gone) : slot);
  const view = new DataView(shorter.buffer);
  const before = new DataView(code.buffer, code.byteOffset, code.length);
  for (let slot = 0; slot < code.length / SLOT; slot++) {
    if (slot >= n && slot < n + gone) continue;
    const field = targetField(code[SLOT * slot]!);
    if (field === null) continue;
    const at = SLOT * slot;
    const offset = field === "imm" ? before.getInt32(at + 4, true) : before.getInt16(at + 2, true);
    const to = moved(slot);
    const distance = moved(slot + 1 + offset) - to - 1;
    if (field === "imm") view.setInt32(SLOT * to + 4, distance, true);
    else view.setInt16(SLOT * to + 2, distance, true);
  }
  return shorter;
}

/** Returns the field of an instruction that holds its target; null if there is none. */
function targetField(opcode: number): "imm" | "offset" | null {
  const jumps = (opcode & 7) === CLASS.JMP || (opcode & 7) === CLASS.JMP32;
  if (!jumps || opcode === EXIT) return null;
  return opcode === CALL || opcode === LONG_GOTO ? "imm" : "offset";
}
