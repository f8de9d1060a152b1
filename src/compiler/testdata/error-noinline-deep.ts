// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
function f1(value: u32): u32 {
  "use noinline";
  return f2(value) + 1;
}
function f2(value: u32): u32 {
  "use noinline";
  return f3(value) + 2;
}
function f3(value: u32): u32 {
  "use noinline";
  return f4(value) + 3;
}
function f4(value: u32): u32 {
  "use noinline";
  return f5(value) + 4;
}
function f5(value: u32): u32 {
  "use noinline";
  return f6(value) + 5;
}
function f6(value: u32): u32 {
  "use noinline";
  return f7(value) + 6;
}
function f7(value: u32): u32 {
  "use noinline";
  return f8(value) + 7;
}
function f8(value: u32): u32 {
  "use noinline";
  return value + 8;
}
export function main(context: Context): number {
  return i32(f1(view(CONTEXT, context, 0).num_bufs));
}
