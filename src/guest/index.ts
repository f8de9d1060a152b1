export * from "./driver.ts";
export * from "./memory.ts";
export * from "./ring.ts";
