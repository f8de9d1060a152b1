/** The queue dump: text that the guest reads word by word. */
import type { Nic } from "./nic.ts";

/** Takes a dump of all served rings. It stays as it is until the next one. */
export function takeDump({ pairs, state }: Nic): void {
  const lines = pairs.flatMap(({ rx, tx }) => [...rx.dump(), ...tx.dump()]);
  state.dump = `${lines.join("\n")}\n`;
  // The new dump may be shorter than the old offset.
  state.dumpOffset = 0;
}

/** Bytes of the dump and its terminating zero; 0: none was taken. */
export function dumpLength({ state }: Nic): number {
  return state.dump === "" ? 0 : Buffer.byteLength(state.dump) + 1;
}

export function dumpWord({ state }: Nic): number {
  const bytes = Buffer.alloc(4);
  Buffer.from(state.dump).copy(bytes, 0, state.dumpOffset);
  return bytes.readUInt32LE();
}

export function selectDumpOffset({ state, refusals }: Nic, offset: number): void {
  if (offset <= Buffer.byteLength(state.dump)) state.dumpOffset = offset & ~3;
  else refusals.add("register", `dump offset ${offset} is behind the dump`);
}
