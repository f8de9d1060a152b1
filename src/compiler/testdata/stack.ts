// @ts-nocheck
import { type Context, after, call, compareExchange, elements, exchange, fetchAdd, i32, i64, stack, swap16, swap32, swap64, u8, u16, u32, u64, view } from "../../compiler/language.ts";
import { BUF, BUFS_OFFSET, CONTEXT, PRIVATE_OFFSET } from "../../abi/index.ts";
// biome-ignore-all lint: what the compiler is tested with.
declare const RING: any;
declare const bufs: number;
function header(context: Context, length: u16): View<typeof RING> {
  const made = stack(RING);
  made.head = length;
  made.flags = 0;
  made.packed = view(CONTEXT, context, 0).num_bufs;
  made.total = u64(length) << 32n;
  return made;
}

export function main(context: Context): number {
  const first = header(context, 14);
  const second = header(context, 20);
  second.packed += first.packed;
  call(1, first, second);
  const ring = view(RING, context, PRIVATE_OFFSET);
  ring.packed = second.packed;
  ring.total = fetchAdd(second.total, 1n);
  return i32(first.packed);
}
