import type { AtomicOp } from "../../ebpf/opcode.ts";

/** True if the atomic writes the old value into its source register. */
export function fetchesOld(op: AtomicOp): boolean {
  return op.startsWith("fetch") || op === "xchg";
}
