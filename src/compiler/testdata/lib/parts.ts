// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
import { LIMIT } from "./limits.js";

const DOUBLED = LIMIT * 2;

export function clamp(value: u32): u32 {
  return value > DOUBLED ? DOUBLED : value;
}

export function publish(context: Context, count: u32): void {
  fetchAdd(view(RING, context, PRIVATE_OFFSET).packed, clamp(count));
}

export function done(context: Context): number {
  return view(RING, context, PRIVATE_OFFSET).head === LIMIT ? 1 : 0;
}

export function narrow(value: u32): u8 {
  return value;
}
