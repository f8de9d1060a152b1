// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;

// Four accesses of one field in the source are four in the program, though nobody needs three of them.
export function main(context: Context): number {
  const ring = view(RING, context, PRIVATE_OFFSET);
  ring.packed;
  ring.packed;
  ring.packed = 1;
  ring.packed = 1;
  return 0;
}
