/**
 * The few parts of WebAssembly's JavaScript interface that are used here; `@types/node` 20 does not
 * declare them.
 */

export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

export type WasmFunction = (...args: never[]) => unknown;

interface WasmApi {
  readonly Memory: new (limits: { initial: number; maximum: number }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: Readonly<Record<string, Readonly<Record<string, unknown>>>>,
  ) => { readonly exports: Readonly<Record<string, WasmFunction>> };
}

const { WebAssembly: api } = globalThis as unknown as { readonly WebAssembly: WasmApi };

/** Bytes of a WebAssembly page. */
const WASM_PAGE = 65536;

/**
 * Zeroed memory that never grows, so its buffer stays valid: `size` bytes, rounded up to 64 KiB.
 */
export function createWasmMemory(size: number): WasmMemory {
  const pages = Math.ceil(size / WASM_PAGE);
  return new api.Memory({ initial: pages, maximum: pages });
}

/** Compiles at once: modules here are small, and V8 optimises them later in its own threads. */
export function instantiate(
  bytes: Uint8Array,
  imports: Readonly<Record<string, unknown>>,
): Readonly<Record<string, WasmFunction>> {
  return new api.Instance(new api.Module(bytes), { env: imports }).exports;
}
