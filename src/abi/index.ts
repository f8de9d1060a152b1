/** The ABI between guest driver and host, as data. */
export * from "./blob.ts";
export * from "./context.ts";
export * from "./features.ts";
export * from "./layout.ts";
export * from "./programs.ts";
export * from "./registers.ts";
