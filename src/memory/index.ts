export * from "./batch.ts";
export * from "./bounce.ts";
export * from "./context-words.ts";
export * from "./guest-memory.ts";
export * from "./metadata.ts";
export * from "./pieces.ts";
export * from "./receive-filter.ts";
export * from "./regions.ts";
