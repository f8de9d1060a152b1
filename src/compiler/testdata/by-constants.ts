// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
/** Counts beyond the width and divisors of 0 have values, but verifiers take neither as an instruction. */
export function main(context: Context): number {
  const ring = view(RING, context, PRIVATE_OFFSET);
  let by: u32 = 35;
  let none: u64 = 0n;
  ring.packed = ring.packed << by;
  ring.packed = ring.packed >>> (by - 3);
  ring.total = ring.total / none + ring.total % none;
  return 0;
}
