/** The CTRL register. */
import { CTRL } from "../abi/index.ts";
import { takeDump } from "./dump.ts";
import type { Nic } from "./nic.ts";

/** Executes all commands of one write. Each looks at what was enabled before the write. */
export function control(nic: Nic, bits: number): void {
  const { rxEnabled, txEnabled } = nic;
  if (bits & CTRL.RX_ENABLE && !rxEnabled) nic.enable("RX");
  if (bits & CTRL.RX_DISABLE && rxEnabled) nic.disable("RX");
  if (bits & CTRL.TX_ENABLE && !txEnabled) nic.enable("TX");
  if (bits & CTRL.TX_DISABLE && txEnabled) nic.disable("TX");
  if (bits & CTRL.UPGRADE_READY) nic.state.upgradePending = false;
  if (bits & CTRL.QUEUES_DUMP) takeDump(nic);
}
