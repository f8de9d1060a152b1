// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
function sum(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32): u32 {
  "use noinline";
  return a + b + c + d + e + f;
}
export function main(context: Context): number {
  return i32(sum(1, 2, 3, 4, 5, 6));
}
