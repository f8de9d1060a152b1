/** What the worker of a NIC is told to serve, from the NIC's spec. */
import { PCI_DEVICE, PCI_DEVICE_ORIGINAL } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import { Usage } from "../errors.ts";
import { isOffloadWord, offloadFeatures } from "../memory/offloads.ts";
import { parsePort } from "../net/create.ts";
import { parsePolicy } from "../net/policies/index.ts";
import { ConfigError, checkConfig, parseMac } from "../nic/config.ts";
import type { NicOptions } from "./handle.ts";
import { requireShort } from "./socket-path.ts";
import { isFilterUsed, isLinkUp, type NicSpec, rateOf, spinOf } from "./spec.ts";

/** The spec's ring format. */
export interface LoadedDevice {
  readonly format: RingFormat;
  /** What a worker loads it by. */
  readonly device: string;
}

/** @throws Usage if such a NIC cannot be made */
export function nicOptions(spec: NicSpec, { device, format }: LoadedDevice): NicOptions {
  requireShort("--socket", spec.socket);
  const mac = parseMac(spec.mac);
  const nic = {
    pairs: spec.queues,
    ...{ rxBufs: spec.rxBufs, txBufs: spec.txBufs },
    ...{ mac, mtu: spec.maxMtu, linkSpeed: spec.speed, doorbellSize: 8 },
    ...featuresOf(spec.offloads),
  };
  try {
    checkConfig({ ...nic, device: format });
  } catch (error) {
    throw error instanceof ConfigError ? new Usage(error.message) : error;
  }
  return {
    ...{ device, nic, port: parsePort(spec.port), socketPath: spec.socket },
    interrupts: spec.interrupts === "msi" ? "msi" : "msix",
    pciDevice: spec.originalId ? PCI_DEVICE_ORIGINAL : PCI_DEVICE,
    ...{ spinUs: spinOf(spec), answerDelayMs: spec.answerDelay },
    allowUnsealed: spec.allowUnsealed,
    rate: rateOf(spec.rate),
    ...{ linkUp: isLinkUp(spec.link), filtered: isFilterUsed(spec.filter) },
    policies: spec.policies.map((each) => parsePolicy(each, { mac })),
  };
}

/** Nothing for all that the device has. */
function featuresOf(offloads: readonly string[]): { features?: number } {
  if (offloads.includes("all")) return {};
  return { features: offloadFeatures(offloads.filter(isOffloadWord)) };
}
