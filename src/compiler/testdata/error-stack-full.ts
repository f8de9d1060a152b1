// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
export function main(context: Context): number {
  const s1 = stack(RING);
  const s2 = stack(RING);
  const s3 = stack(RING);
  const s4 = stack(RING);
  const s5 = stack(RING);
  const s6 = stack(RING);
  const s7 = stack(RING);
  const s8 = stack(RING);
  const s9 = stack(RING);
  return 0;
}
