import type { RingFormat } from "../format.ts";
import { initialisePacked, PackedRx, PackedTx } from "./host.ts";
import { packedContextSize } from "./layout.ts";

/** VirtIO's packed virtqueue: one descriptor per packet, no offloads, event index both ways. */
export const vringPackedRing: RingFormat = {
  name: "vring_packed",
  features: 0,
  sizeProblem: (bufs) =>
    bufs < 2 ** 15 ? null : `vring_packed: ${bufs} buffers: its indices have 15 bits`,
  contextSize: packedContextSize,
  initialise: initialisePacked,
  tx: (config) => new PackedTx(config),
  rx: (config) => new PackedRx(config),
};
