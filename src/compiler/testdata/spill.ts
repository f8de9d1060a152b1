// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
export function main(context: Context): number {
  const buffers = elements(BUF, context, BUFS_OFFSET);
  // Twelve values at the same time: ten registers, one of which is the context's.
  const a = buffers[0].cookie;
  const b = buffers[1].cookie;
  const c = buffers[2].cookie;
  const d = buffers[3].cookie;
  const e = buffers[4].cookie;
  const f = buffers[5].cookie;
  const g = buffers[6].cookie;
  const h = buffers[7].cookie;
  const i = buffers[8].cookie;
  const j = buffers[9].cookie;
  const k = buffers[10].cookie;
  const l = buffers[11].cookie;
  view(RING, context, PRIVATE_OFFSET).total = (a ^ l) + (b ^ k) + (c ^ j) + (d ^ i) + (e ^ h) + (f ^ g);
  return 0;
}
