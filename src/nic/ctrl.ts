/** The CTRL register. */
import { CTRL } from "../abi/index.ts";
import { takeDump } from "./dump.ts";
import type { Nic } from "./nic.ts";

/** The original's handshake: the driver has closed, and fetches the new set next. */
function upgradeReady(nic: Nic): void {
  if (nic.upgrade.phase === "asked" && nic.enabled) {
    return nic.refusals.add("enable", "ready for another set while the NIC is enabled");
  }
  nic.upgrade.taken("the guest closed its interface and opened it again");
  nic.state.upgradePending = false;
  nic.link.follow();
}

/** Executes all commands of one write. Each looks at what was enabled before the write. */
export function control(nic: Nic, bits: number): void {
  const { rxEnabled, txEnabled } = nic;
  if (bits & CTRL.RX_ENABLE && !rxEnabled) nic.enable("RX");
  if (bits & CTRL.RX_DISABLE && rxEnabled) nic.disable("RX");
  if (bits & CTRL.TX_ENABLE && !txEnabled) nic.enable("TX");
  if (bits & CTRL.TX_DISABLE && txEnabled) nic.disable("TX");
  if (bits & CTRL.UPGRADE_READY) upgradeReady(nic);
  if (bits & CTRL.QUEUES_DUMP) takeDump(nic);
}
