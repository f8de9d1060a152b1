/** Configuration of a NIC, checked before anything is opened. */
import { featureNames, MAX_QUEUE_PAIRS, validQueueBufs } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import { macBytes } from "../net/words.ts";

export interface NicConfig {
  readonly device: RingFormat;
  /** 1..8 */
  readonly pairs: number;
  readonly rxBufs: number;
  readonly txBufs: number;
  /** Six bytes. */
  readonly mac: Uint8Array;
  /** Start and maximum: bytes behind the Ethernet header and up to two VLAN tags. */
  readonly mtu: number;
  /** Mb/s, 0 = unknown. */
  readonly linkSpeed: number;
  /** Feature bits offered to the guest, of those of the ring format; default: all. */
  readonly features?: number;
  /** Bytes between doorbells: a power of two. */
  readonly doorbellSize: number;
}

/** Invalid user-supplied value; the message gives the valid range. */
export class ConfigError extends Error {
  readonly code = "CONFIG";
  constructor(message: string) {
    super(message);
    this.name = "ConfigError";
  }
}

/** @returns the feature bits that a NIC offers */
export function offeredFeatures({ device, features }: NicConfig): number {
  return features ?? device.features;
}

export const DEFAULT_BUFS = 256;
export const MIN_MTU = 68;
export const MAX_MTU = 65535;
/**
 * The largest that our Linux driver takes from a ring format that receives each packet into one
 * buffer: 32 KiB less headroom (256 bytes), skb_shared_info (320), an Ethernet header and two VLAN
 * tags.
 */
export const LINUX_MTU = 32768 - 256 - 320 - 22;

/** @returns a warning if Linux guests may limit this MTU; null if they accept it */
export function mtuNotice(mtu: number): string | null {
  if (mtu <= LINUX_MTU) return null;
  return (
    `MTU ${mtu}: the Linux driver takes ${LINUX_MTU} at most if the ring format receives a packet ` +
    `into one buffer; use --mtu ${LINUX_MTU} so that both sides agree`
  );
}

/** @throws ConfigError */
export function checkConfig(config: NicConfig): void {
  const { pairs, rxBufs, txBufs, mac, mtu, doorbellSize } = config;
  if (!Number.isInteger(pairs) || pairs < 1 || pairs > MAX_QUEUE_PAIRS) {
    throw new ConfigError(`${pairs} queue pairs: use 1 to ${MAX_QUEUE_PAIRS}`);
  }
  for (const [name, bufs] of [
    ["receive", rxBufs],
    ["transmit", txBufs],
  ] as const) {
    if (!validQueueBufs(bufs)) {
      throw new ConfigError(`${bufs} ${name} buffers: use a power of two from 16 to 8192`);
    }
  }
  if (mac.length !== 6 || mac[0] & 1 || mac.every((byte) => byte === 0)) {
    throw new ConfigError(`MAC ${formatMac(mac)}: use a unicast address that is not all zero`);
  }
  if (!Number.isInteger(mtu) || mtu < MIN_MTU || mtu > MAX_MTU) {
    throw new ConfigError(`MTU ${mtu}: use ${MIN_MTU} to ${MAX_MTU}`);
  }
  const { device, features = 0 } = config;
  if (features & ~device.features) {
    const names = featureNames(device.features).join(", ") || "none";
    throw new ConfigError(`offloads that ${device.name} does not have: it has ${names}`);
  }
  for (const bufs of [rxBufs, txBufs]) {
    const problem = device.sizeProblem?.(bufs) ?? null;
    if (problem !== null) throw new ConfigError(problem);
  }
  if (doorbellSize < 8 || doorbellSize > 4096 || (doorbellSize & (doorbellSize - 1)) !== 0) {
    throw new ConfigError(`doorbell stride ${doorbellSize}: use a power of two from 8 to 4096`);
  }
}

/** @throws ConfigError */
export function parseMac(text: string): Uint8Array {
  const mac = macBytes(text);
  if (mac !== null) return mac;
  throw new ConfigError(`MAC "${text}": write six bytes as 52:54:00:12:34:56`);
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
