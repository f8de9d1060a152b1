// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
declare const form: string;
export function main(context: Context): number {
  const ring = view(RING, context, PRIVATE_OFFSET);
  switch (ring.flags) {
    case 1:
      ring.total += 1n;
      break;
    case 2:
    case 3:
      return 2;
    default:
      if (form === "v1") call(1);
      else fetchAdd(ring.total, u64(ring.flags));
  }
  return compareExchange(ring.packed, 0, 7) === 0 ? 1 : 0;
}
