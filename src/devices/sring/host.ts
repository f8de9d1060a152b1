/**
 * sring, host half.
 *
 * The guest's words are hostile. `prod` is loaded once per batch and checked: more than n entries
 * ahead is invalid and stops the queue. The host's own index is not in the context: `qmask` and
 * `cons` there are written for the guest and, while the queue runs, never read back.
 */
import { defineNic, type RingConfig } from "../define.ts";
import { joinRx, joinTx } from "../join.ts";
import { SlotPath } from "../slot-path.ts";
import { initialiseSring, sringControl } from "./control-words.ts";
import * as layout from "./layout.ts";
import { SRING, SRING_DESC } from "./layout.ts";

function parts(direction: "rx" | "tx", config: RingConfig) {
  const control = sringControl(direction, config);
  return [control, new SlotPath(config, control, SRING.size, SRING_DESC)] as const;
}

/** The simple ring: one descriptor per packet, no offloads. */
export const sring = defineNic({
  name: "sring",
  programs: new URL("./guest.ts", import.meta.url),
  layouts: layout,
  privateSize: (bufs) => SRING.size + SRING_DESC.size * bufs,
  initialise: initialiseSring,
  tx: (config) => joinTx(...parts("tx", config)),
  rx: (config) => joinRx(...parts("rx", config)),
});
