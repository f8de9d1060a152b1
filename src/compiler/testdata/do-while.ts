// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
export function main(context: Context): number {
  const ring = view(RING, context, PRIVATE_OFFSET);
  let rounds: u8 = 0;
  do {
    rounds++;
    if (ring.flags === 1) continue;
    if (ring.flags === 2) break;
    ring.packed += rounds;
  } while (rounds < 10);
  let left = ring.head;
  while (left > 0) {
    if (left > 64) break;
    left--;
    fetchAdd(ring.total, 1n);
  }
  return i32(u32(rounds));
}
