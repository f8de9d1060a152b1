/** What a register or a stack slot holds, as far as is known. */
import { contains, describeScalar, type Scalar, stepOf } from "./scalar.ts";

/** The address of something in the context or in the stack frame of function number `frame` of the call chain. */
export class Pointer {
  readonly isPointer = true;
  readonly region: "context" | "stack";
  /** 0 for the program itself, 1 for what it called, …; 0 for the context. */
  readonly frame: number;
  /** From the start of the context, or from the frame pointer (so negative within the stack). */
  readonly offset: Scalar;

  constructor(region: "context" | "stack", frame: number, offset: Scalar) {
    this.region = region;
    this.frame = frame;
    this.offset = offset;
  }
}

/** Undefined: never written. */
export type Value = Scalar | Pointer;

/** True where whatever holds for each value that `outer` allows holds for each that `inner` allows. */
export function covers(outer: Value, inner: Value): boolean {
  if (outer === inner) return true;
  if (!outer.isPointer) return !inner.isPointer && contains(outer, inner);
  return (
    inner.isPointer &&
    outer.region === inner.region &&
    outer.frame === inner.frame &&
    contains(outer.offset, inner.offset)
  );
}

/** For messages: `context + 16`, `stack - 8`, `0..255`. */
export function describe(value: Value | undefined): string {
  if (value === undefined) return "not initialised";
  if (!value.isPointer) return describeScalar(value);
  const name =
    value.region === "context" ? "context" : value.frame === 0 ? "fp" : `fp${value.frame}`;
  return `${name} + ${describeOffset(value.offset)}`;
}

export function describeOffset(offset: Scalar, displacement = 0): string {
  const { min, max } = offset;
  if (!Number.isFinite(min) || !Number.isFinite(max)) return describeScalar(offset);
  if (min === max) return `${min + displacement}`;
  const step = stepOf(offset.bits);
  const steps = step > 1 ? ` in steps of ${step}` : "";
  return `${min + displacement}..${max + displacement}${steps}`;
}
