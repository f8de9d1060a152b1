// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
declare const form: string;
export function main(context: Context): number {
  const ring = view(RING, context, PRIVATE_OFFSET);
  const old: u16 = ring.head;
  ring.head = old + 3;
  const event = ring.packed;
  const at = u16(event & 0x7fff);
  return old + 3 - at - 1 < 3 ? 1 : 0;
}
