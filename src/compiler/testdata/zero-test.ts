// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
declare const form: string;
export function differences(context: Context): number {
  const ring = view(RING, context, PRIVATE_OFFSET);
  if (ring.packed - ring.packed === 0) return 1;
  if ((ring.total ^ ring.total) !== 0n) return 2;
  if (u32(ring.total) - u32(ring.total) < 1) return 3;
  if ((ring.packed & bufs) < 1) return 4;
  return 0;
}
// Somebody else reads the difference, a u16 ends before its register does, and counters are left alone.
export function others(context: Context): number {
  const ring = view(RING, context, PRIVATE_OFFSET);
  const ahead = ring.packed - ring.packed;
  if (ahead === 0) return 1;
  if (u16(ring.head - ring.head) === 0) return 2;
  let rounds = ring.packed;
  while (rounds >= 1 && rounds < 8) rounds += 1;
  return ahead;
}
