/**
 * The memory of compiled programs. WebAssembly accesses only its own memory, so contexts must be in
 * it: allocated here, or, for shared memory, pages of a file mapped over a part of it
 * (`mapFileOver` of src/os).
 */
import { MAX_FRAMES, STACK_SIZE } from "../runner.ts";
import { createWasmMemory, type WasmMemory } from "./webassembly.ts";

/** The counter of executed instructions is at 0, the stack follows. */
export const COUNTER_OFFSET = 0;
export const STACK_OFFSET = 64;
const FIRST_FREE = STACK_OFFSET + STACK_SIZE * MAX_FRAMES;

export class LinearMemory {
  readonly wasm: WasmMemory;
  readonly buffer: ArrayBuffer;
  #next = FIRST_FREE;

  /** @param size bytes to allocate from, in addition to the stack. At most 4 GiB. */
  constructor(size: number) {
    this.wasm = createWasmMemory(size + FIRST_FREE);
    this.buffer = this.wasm.buffer;
  }

  /**
   * Allocates bytes at a multiple of `align` (a power of two, at least
   * 8). @throws RangeError if none are left
   */
  allocate(size: number, align = 8): Uint8Array {
    const at = Math.ceil(this.#next / align) * align;
    if (at + size > this.buffer.byteLength) {
      const left = this.buffer.byteLength - this.#next;
      throw new RangeError(`${size} bytes do not fit into the ${left} left of the linear memory`);
    }
    this.#next = at + size;
    return new Uint8Array(this.buffer, at, size);
  }
}
