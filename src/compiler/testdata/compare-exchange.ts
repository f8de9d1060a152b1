// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
/** Takes a ticket: adds one where the count is below the limit, in up to three tries. */
export function main(context: Context): number {
  const ring = view(RING, context, PRIVATE_OFFSET);
  let seen = ring.packed;
  for (let tries = 0; tries < 3; tries++) {
    if (seen >= bufs) return 0;
    const now = compareExchange(ring.packed, seen, seen + 1);
    if (now === seen) return 1;
    seen = now;
  }
  return compareExchange(ring.total, 7n, u64(seen)) === 7n ? 1 : 0;
}
