export * from "./batch.ts";
export * from "./guest-memory.ts";
export * from "./metadata.ts";
export * from "./regions.ts";
