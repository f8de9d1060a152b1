/** For tests of abilities that the in-process driver does not acknowledge by itself. */
import { BAR_REGISTERS, REG } from "../../src/abi/index.ts";
import { writeBar } from "../../src/nic/bars.ts";
import { Bench } from "./guest.ts";

/** A bench whose driver acknowledged one more ability, open. */
export function openWith(
  ability: number,
  options: ConstructorParameters<typeof Bench>[0] = {},
): Bench {
  const bench = new Bench(options);
  const { abilities } = bench.nic.state;
  writeBar(bench.nic, BAR_REGISTERS, REG.EXT_ACK, 4, abilities | ability);
  bench.driver.open();
  bench.settle();
  return bench;
}

/** Writes a 64-bit register, the low half first. */
export function write64(bench: Bench, low: number, address: number): void {
  writeBar(bench.nic, BAR_REGISTERS, low, 4, address % 2 ** 32);
  writeBar(bench.nic, BAR_REGISTERS, low + 4, 4, Math.floor(address / 2 ** 32));
}
