/** Abstract values of registers and stack slots. */
import { contains, describeScalar, type Scalar, stepOf } from "./scalar.ts";

/**
 * An address in the context, or in the stack frame of function number `frame` of the call chain.
 * The sum of added constants and the variable part are separate, as in kernels (`off` and
 * `var_off`): only the second must not be negative.
 */
export class Pointer {
  readonly isPointer = true;
  readonly region: "context" | "stack";
  /** 0 for the program itself, 1 for the function that it called, …; 0 for the context. */
  readonly frame: number;
  /**
   * Offset from the start of the context, or from the frame pointer (so negative within the stack).
   */
  readonly fixed: number;
  readonly offset: Scalar;

  constructor(region: "context" | "stack", frame: number, fixed: number, offset: Scalar) {
    this.region = region;
    this.frame = frame;
    this.fixed = fixed;
    this.offset = offset;
  }

  /** The smallest and the largest offset. */
  get min(): number {
    return this.fixed + this.offset.min;
  }

  get max(): number {
    return this.fixed + this.offset.max;
  }

  get isConstant(): boolean {
    return this.offset.isConstant;
  }
}

/** Undefined: uninitialised. */
export type Value = Scalar | Pointer;

/** True if `outer` allows every value that `inner` allows. */
export function covers(outer: Value, inner: Value): boolean {
  if (outer === inner) return true;
  if (!outer.isPointer) return !inner.isPointer && contains(outer, inner);
  return (
    inner.isPointer &&
    outer.region === inner.region &&
    outer.frame === inner.frame &&
    outer.fixed === inner.fixed &&
    contains(outer.offset, inner.offset)
  );
}

/** Formats for messages: `context + 16`, `stack - 8`, `0..255`. */
export function describe(value: Value | undefined): string {
  if (value === undefined) return "not initialised";
  if (!value.isPointer) return describeScalar(value);
  const name =
    value.region === "context" ? "context" : value.frame === 0 ? "fp" : `fp${value.frame}`;
  return `${name} + ${describeOffset(value)}`;
}

/** @param displacement the instruction's offset */
export function describeOffset(pointer: Pointer, displacement = 0): string {
  const { min, max, fixed, offset } = pointer;
  if (!Number.isFinite(min) || !Number.isFinite(max)) {
    const constant = fixed + displacement;
    return `${constant === 0 ? "" : `${constant} + `}${describeScalar(offset)}`;
  }
  if (min === max) return `${min + displacement}`;
  const step = stepOf(offset.bits);
  const steps = step > 1 ? ` in steps of ${step}` : "";
  return `${min + displacement}..${max + displacement}${steps}`;
}
