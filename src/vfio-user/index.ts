export { type Region, type RegionFile, RegionTable } from "../memory/regions.ts";
export { COUNTERS, type CounterName, type Counters } from "./counters.ts";
export type { Bar, DeviceHost, PciDevice, PciIdentity } from "./device.ts";
export { ServerLoop, type Timer } from "./loop.ts";
export { VfioUserServer } from "./server.ts";
export type { ServerOptions } from "./server-options.ts";
