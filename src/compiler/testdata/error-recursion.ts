// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
declare const form: string;
function down(n: u32): u32 {
  return down(n - 1) + 1;
}
export function main(context: Context): number {
  return down(view(CONTEXT, context, 0).num_bufs);
}
