/** Which features a backend offers, from the words of its command line. */
import { FEATURES } from "../../abi/index.ts";

export const OFFLOADS = ["txcsum", "rxcsum", "tso", "lro"] as const;
export type Offload = (typeof OFFLOADS)[number];

const KEPT: Readonly<Record<Offload, number>> = {
  txcsum: FEATURES.SG | FEATURES.TX_CSUM,
  rxcsum: FEATURES.SG | FEATURES.RX_CSUM,
  tso: FEATURES.TSO_V4 | FEATURES.TSO_V6 | FEATURES.UFO,
  lro: FEATURES.TCP_V4_LRO | FEATURES.TCP_V6_LRO | FEATURES.UDP_LRO,
};

/** `-C` and `-G`. */
export const CHECKSUMS: readonly Offload[] = ["txcsum", "rxcsum"];

/** Feature bits that the offloads stand for; a device offers those of them that it has. */
export function offloadFeatures(offloads: Iterable<Offload>): number {
  let features = 0;
  for (const offload of offloads) features |= KEPT[offload];
  return features;
}
