/** Offload features: bits of the FEATURES register. */
export const FEATURES = {
  SG: 0x001,
  TX_CSUM: 0x002,
  RX_CSUM: 0x004,
  TSO_V4: 0x008,
  TCP_V4_LRO: 0x010,
  TSO_V6: 0x020,
  TCP_V6_LRO: 0x040,
  UFO: 0x080,
  UDP_LRO: 0x100,
  RX_OUT_OF_ORDER: 0x200,
  TX_OUT_OF_ORDER: 0x400,
} as const;

export type FeatureName = keyof typeof FEATURES;

/** Returns the names of the bits set in `features`, for messages. */
export function featureNames(features: number): FeatureName[] {
  return (Object.keys(FEATURES) as FeatureName[]).filter((name) => features & FEATURES[name]);
}
