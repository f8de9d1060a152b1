/**
 * The language of guest programs, as an editor's type checker sees it. The compiler knows these by
 * name; nothing here is executed.
 *
 *     u8..u32 and i8..i32 are numbers to TypeScript, u64 and i64 bigints: no mixing.
 */
import type { Field, Struct } from "../abi/layout.ts";

export type u8 = number;
export type u16 = number;
export type u32 = number;
export type i8 = number;
export type i16 = number;
export type i32 = number;
export type u64 = bigint;
export type i64 = bigint;

declare const context: unique symbol;
/** The queue's context, R1 of every program. */
export interface Context {
  readonly [context]: never;
}

/**
 * A struct in memory. Each access in the source is one access
 * of the field's width, in the same order.
 */
export type View<S> =
  S extends Struct<infer F>
    ? { -readonly [K in keyof F]: F[K] extends Field<8> ? bigint : number }
    : never;

/** An array of structs. Indices are not checked: mask them, or compare them with a constant. */
export interface Elements<S> {
  readonly [index: number]: View<S>;
}

type Integer = number | bigint;

function compiled(): never {
  throw new Error("guest programs are compiled to eBPF; they do not run as JavaScript");
}
const only = <F>(): F => compiled as unknown as F;

type Cast<R> = (value: Integer | boolean) => R;
/** Conversions: wrap to the type. */
export const u8 = only<Cast<number>>();
export const u16 = only<Cast<number>>();
export const u32 = only<Cast<number>>();
export const i8 = only<Cast<number>>();
export const i16 = only<Cast<number>>();
export const i32 = only<Cast<number>>();
export const u64 = only<Cast<bigint>>();
export const i64 = only<Cast<bigint>>();

/** Returns the struct at `offset` bytes of the context. */
export const view = only<<S>(layout: S, context: Context, offset: number) => View<S>>();
/** Returns the array of structs at `offset` bytes of the context. */
export const elements = only<<S>(layout: S, context: Context, offset: number) => Elements<S>>();
/** Returns a struct on the program's stack, uninitialised, for helpers to read or fill. */
export const stack = only<<S>(layout: S) => View<S>>();

type Modify = <T extends Integer>(field: T, value: T) => T;
/**
 * Atomics on a u32 or u64 field, which is written as a value: `fetchAdd(ring.prod, 1)`. They return
 * the old value and are full barriers in the kernel's memory model (Documentation/atomic_t.txt).
 */
export const fetchAdd = only<Modify>();
export const fetchOr = only<Modify>();
export const fetchAnd = only<Modify>();
export const fetchXor = only<Modify>();
export const exchange = only<Modify>();
/** Stores `value` if the field holds `expected`. Returns the old value; a full barrier. */
export const compareExchange = only<<T extends Integer>(field: T, expected: T, value: T) => T>();

/**
 * Calls a helper by number, with the context, integers, or structs on the stack. Returns its int.
 */
export const call = only<(helper: number, ...args: unknown[]) => number>();

/**
 * Returns `value` with a dependency on `loaded`: a load from an address computed
 * with it is ordered after the load of `loaded`, on every CPU. Costs two
 * instructions, or one if `value ^ loaded` is available.
 */
export const after = only<<T extends Integer>(value: T, loaded: T) => T>();

/** Reverse the order of bytes. */
export const swap16 = only<(value: number) => number>();
export const swap32 = only<(value: number) => number>();
export const swap64 = only<(value: bigint) => bigint>();
