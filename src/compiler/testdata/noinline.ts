// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
function mix(a: u32, b: u32, c: u64, d: u8, e: boolean): u64 {
  "use noinline";
  const sum = u64(a * 3 + b) + c;
  return e ? sum ^ u64(d) : sum;
}

function bump(context: Context, by: u16): void {
  "use noinline";
  view(RING, context, PRIVATE_OFFSET).head += by;
}

function isOdd(value: u64): boolean {
  "use noinline";
  return (value & 1n) !== 0n;
}

export function main(context: Context): number {
  const ring = view(RING, context, PRIVATE_OFFSET);
  const packed = ring.packed;
  let total = ring.total;
  for (let i = 0; i < 4; i++) {
    total = mix(packed, i, total, ring.flags, i === 2);
    if (isOdd(total)) bump(context, u16(i));
  }
  ring.total = mix(1, 2, total, 255, false);
  return isOdd(total) ? 1 : 0;
}
