export * from "./driver.ts";
export * from "./memory.ts";
export * from "./ring.ts";
export * from "./vfio-user-client.ts";
