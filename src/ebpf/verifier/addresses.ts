/**
 * Arithmetic on addresses, exactly as far as kernels allow it (adjust_ptr_min_max_vals in
 * kernel/bpf/verifier.c).
 */
import type { Instruction } from "../instruction.ts";
import type { AluOp, Bits } from "../opcode.ts";
import { displaced } from "./alu.ts";
import { Refused } from "./refusal.ts";
import { type Scalar, unknown } from "./scalar.ts";
import { describe, Pointer, type Value } from "./value.ts";

/** Offsets stay exact in doubles and far from wrapping (the kernel's BPF_MAX_VAR_OFF). */
const MAX_OFFSET = 2 ** 29;

export function copyPointer(pointer: Pointer, bits: Bits, i: Instruction): Pointer {
  if (bits === 64) return pointer;
  throw new Refused(
    "POINTER_ARITHMETIC",
    i.index,
    `copies half of an address (r${i.src}: ${describe(pointer)})`,
    "copy all 64 bits: r, not w",
  );
}

export function pointerArithmetic(
  i: Instruction,
  op: AluOp,
  bits: Bits,
  a: Value,
  b: Value,
): Value {
  if (bits === 64 && a.isPointer && b.isPointer && op === "sub") return distance(i, a, b);
  const allowed =
    bits === 64 && a.isPointer !== b.isPointer && (op === "add" || (op === "sub" && a.isPointer));
  if (!allowed) {
    throw new Refused(
      "POINTER_ARITHMETIC",
      i.index,
      `${bits}-bit ${op} on an address (r${i.dst}: ${describe(a)}, operand: ${describe(b)})`,
      "only 64-bit addition of a number, or subtraction of one, gives an address",
    );
  }
  return moved(
    i,
    op as "add" | "sub",
    a.isPointer ? a : (b as Pointer),
    (a.isPointer ? b : a) as Scalar,
  );
}

/** Constants are added to the fixed part, other numbers to the variable one. */
function moved(i: Instruction, op: "add" | "sub", pointer: Pointer, by: Scalar): Pointer {
  const { region, frame, fixed, offset } = pointer;
  if (op === "sub" && region === "stack") {
    throw new Refused(
      "POINTER_ARITHMETIC",
      i.index,
      `subtracts from a stack address (r${i.dst}: ${describe(pointer)}), which kernels refuse`,
      "add the negative number instead",
    );
  }
  checkBounded(i, by);
  const at = by.isConstant ? fixed + (op === "add" ? by.min : -by.min) : fixed;
  const variable = by.isConstant ? offset : displaced(op, offset, by);
  const result = new Pointer(region, frame, at, variable);
  checkOffset(i, result);
  return result;
}

/** Returns the distance of two addresses of one region, of which kernels know nothing. */
function distance(i: Instruction, a: Pointer, b: Pointer): Scalar {
  if (a.region === b.region && a.frame === b.frame) return unknown();
  throw new Refused(
    "POINTER_LEAK",
    i.index,
    `the distance of ${describe(a)} from ${describe(b)} would reveal addresses`,
    "subtract addresses of the same region only",
  );
}

function checkBounded(i: Instruction, by: Scalar): void {
  if (by.min > -MAX_OFFSET && by.max < MAX_OFFSET) return;
  throw new Refused(
    "POINTER_ARITHMETIC",
    i.index,
    `moves an address by a number that has no bound (${describe(by)})`,
    "mask the number with a constant, or compare it with one, before adding it",
  );
}

function checkOffset(i: Instruction, { fixed, offset }: Pointer): void {
  const bounded = offset.min > -MAX_OFFSET && offset.max < MAX_OFFSET;
  if (bounded && Math.abs(fixed) < MAX_OFFSET) return;
  throw new Refused(
    "POINTER_ARITHMETIC",
    i.index,
    `moves an address too far (by ${fixed} and ${describe(offset)})`,
    `keep addresses within ${MAX_OFFSET} bytes of the context or the frame`,
  );
}
