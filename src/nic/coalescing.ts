/** The COALESCE register: how long the driver lets the host hold interrupts back. */
import { ABILITY, MAX_COALESCE_US } from "../abi/index.ts";
import type { Nic } from "./nic.ts";
import { coalescingOf } from "./state.ts";

/** @returns why a register value is refused; null if it is valid */
export function coalescingProblem(value: number): string | null {
  for (const half of [value & 0xffff, value >>> 16]) {
    const { us } = coalescingOf(half);
    if (us > MAX_COALESCE_US) return `${us} us: use 0 to ${MAX_COALESCE_US}`;
  }
  return null;
}

export function setCoalescing(nic: Nic, value: number): void {
  const able = (nic.state.abilities & ABILITY.COALESCE) !== 0;
  const problem = able ? coalescingProblem(value) : "request without the ability COALESCE";
  if (problem !== null) return nic.refusals.add("register", `interrupt coalescing: ${problem}`);
  nic.state.coalesce = value;
  nic.useSettings();
}
