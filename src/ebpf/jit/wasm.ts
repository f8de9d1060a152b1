/**
 * A WebAssembly binary (core specification 2.0, section 5, and the threads proposal), as far as
 * programs need it.
 */

export const TYPE = { i32: 0x7f, i64: 0x7e, f64: 0x7c, void: 0x40 } as const;
export type ValueType = (typeof TYPE)["i32" | "i64" | "f64"];
type BlockType = ValueType | typeof TYPE.void;

/** Instructions without immediates. */
export const OP = {
  unreachable: 0x00,
  else: 0x05,
  end: 0x0b,
  return: 0x0f,
  drop: 0x1a,
  select: 0x1b,
  i32_eqz: 0x45,
  i32_eq: 0x46,
  i32_ne: 0x47,
  i32_lt_s: 0x48,
  i32_lt_u: 0x49,
  i32_gt_s: 0x4a,
  i32_gt_u: 0x4b,
  i32_le_s: 0x4c,
  i32_le_u: 0x4d,
  i32_ge_s: 0x4e,
  i32_ge_u: 0x4f,
  i64_eqz: 0x50,
  i64_eq: 0x51,
  i64_ne: 0x52,
  i64_lt_s: 0x53,
  i64_lt_u: 0x54,
  i64_gt_s: 0x55,
  i64_gt_u: 0x56,
  i64_le_s: 0x57,
  i64_le_u: 0x58,
  i64_ge_s: 0x59,
  i64_ge_u: 0x5a,
  i32_add: 0x6a,
  i32_sub: 0x6b,
  i32_mul: 0x6c,
  i32_div_s: 0x6d,
  i32_div_u: 0x6e,
  i32_rem_s: 0x6f,
  i32_rem_u: 0x70,
  i32_and: 0x71,
  i32_or: 0x72,
  i32_xor: 0x73,
  i32_shl: 0x74,
  i32_shr_s: 0x75,
  i32_shr_u: 0x76,
  i32_rotl: 0x77,
  i64_add: 0x7c,
  i64_sub: 0x7d,
  i64_mul: 0x7e,
  i64_div_s: 0x7f,
  i64_div_u: 0x80,
  i64_rem_s: 0x81,
  i64_rem_u: 0x82,
  i64_and: 0x83,
  i64_or: 0x84,
  i64_xor: 0x85,
  i64_shl: 0x86,
  i64_shr_s: 0x87,
  i64_shr_u: 0x88,
  i64_rotl: 0x89,
  i32_wrap_i64: 0xa7,
  i64_extend_i32_u: 0xad,
  i32_extend8_s: 0xc0,
  i32_extend16_s: 0xc1,
  i64_extend8_s: 0xc2,
  i64_extend16_s: 0xc3,
  i64_extend32_s: 0xc4,
} as const;
export type Op = keyof typeof OP;

/** Loads and stores of an i64, by bytes. */
export const LOAD = { 1: 0x31, 2: 0x33, 4: 0x35, 8: 0x29 } as const;
export const LOAD_SIGNED = { 1: 0x30, 2: 0x32, 4: 0x34, 8: 0x29 } as const;
export const STORE = { 1: 0x3c, 2: 0x3d, 4: 0x3e, 8: 0x37 } as const;
/** Read-modify-write: the i64 form of 8 bytes, and of 4 bytes zero-extended. Prefixed with 0xfe. */
export const ATOMIC = {
  add: { 8: 0x1f, 4: 0x24 },
  and: { 8: 0x2d, 4: 0x32 },
  or: { 8: 0x34, 4: 0x39 },
  xor: { 8: 0x3b, 4: 0x40 },
  xchg: { 8: 0x42, 4: 0x47 },
  cmpxchg: { 8: 0x49, 4: 0x4e },
} as const;

const ATOMIC_PREFIX = 0xfe;
const LOG2 = { 1: 0, 2: 1, 4: 2, 8: 3 } as const;

/** A growing row of instructions. */
export class Code {
  readonly bytes: number[] = [];

  op(...names: readonly Op[]): this {
    for (const name of names) this.bytes.push(OP[name]);
    return this;
  }

  get(local: number): this {
    return this.#with(0x20, local);
  }

  set(local: number): this {
    return this.#with(0x21, local);
  }

  tee(local: number): this {
    return this.#with(0x22, local);
  }

  i32(value: number): this {
    this.bytes.push(0x41);
    signed(this.bytes, BigInt(value | 0));
    return this;
  }

  i64(value: bigint): this {
    this.bytes.push(0x42);
    signed(this.bytes, BigInt.asIntN(64, value));
    return this;
  }

  block(): this {
    this.bytes.push(0x02, TYPE.void);
    return this;
  }

  loop(): this {
    this.bytes.push(0x03, TYPE.void);
    return this;
  }

  if(type: BlockType = TYPE.void): this {
    this.bytes.push(0x04, type);
    return this;
  }

  br(depth: number): this {
    return this.#with(0x0c, depth);
  }

  brIf(depth: number): this {
    return this.#with(0x0d, depth);
  }

  /** Leaves as many blocks as the number on the stack says, at most `count - 1`. */
  brTable(count: number): this {
    this.#with(0x0e, count);
    for (let depth = 0; depth <= count; depth++) unsigned(this.bytes, Math.min(depth, count - 1));
    return this;
  }

  call(index: number): this {
    return this.#with(0x10, index);
  }

  /** A load or store of `size` bytes at the address on the stack plus `offset`; any alignment. */
  access(opcode: number, offset: number): this {
    this.bytes.push(opcode, 0);
    unsigned(this.bytes, offset);
    return this;
  }

  /** An atomic of `size` bytes; the address must be aligned. */
  atomic(opcode: number, size: 4 | 8, offset: number): this {
    this.bytes.push(ATOMIC_PREFIX, opcode, LOG2[size]);
    unsigned(this.bytes, offset);
    return this;
  }

  #with(opcode: number, immediate: number): this {
    this.bytes.push(opcode);
    unsigned(this.bytes, immediate);
    return this;
  }
}

function unsigned(bytes: number[], value: number): void {
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  bytes.push(rest);
}

function signed(bytes: number[], value: bigint): void {
  let rest = value;
  while (rest < -64n || rest > 63n) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest & 0x7fn));
}

export interface Signature {
  readonly params: readonly ValueType[];
  readonly results: readonly ValueType[];
}

export interface FunctionBody {
  readonly signature: Signature;
  /** Types of the locals behind the parameters. */
  readonly locals: readonly ValueType[];
  readonly code: Code;
  readonly exported?: string;
}

/** One module with a memory imported as "memory"; all imports are of "env". */
export class WasmModule {
  readonly #imports: { name: string; signature: Signature }[] = [];
  readonly #functions: FunctionBody[] = [];

  /** Imports come before functions. @returns the index to call */
  import(name: string, signature: Signature): number {
    return this.#imports.push({ name, signature }) - 1;
  }

  /** @returns the index to call */
  add(body: FunctionBody): number {
    return this.#imports.length + this.#functions.push(body) - 1;
  }

  /** @param pages of the imported memory, which never grows */
  encode(pages: number): Uint8Array {
    const signatures = [...this.#imports, ...this.#functions].map((f) => f.signature);
    const imports = this.#imports.map((f, type) => [
      ...name("env"),
      ...name(f.name),
      0,
      ...u(type),
    ]);
    imports.push([...name("env"), ...name("memory"), 2, 1, ...u(pages), ...u(pages)]);
    const first = this.#imports.length;
    const exports = this.#functions.flatMap((f, i) =>
      f.exported === undefined ? [] : [[...name(f.exported), 0, ...u(first + i)]],
    );
    return Uint8Array.from([
      ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...section(1, signatures.map(encodeSignature)),
      ...section(2, imports),
      ...section(
        3,
        this.#functions.map((_, i) => u(first + i)),
      ),
      ...section(7, exports),
      ...section(10, this.#functions.map(encodeBody)),
    ]);
  }
}

function u(value: number): number[] {
  const bytes: number[] = [];
  unsigned(bytes, value);
  return bytes;
}

const sized = (bytes: readonly number[]): number[] => u(bytes.length).concat(bytes);
const name = (text: string): number[] => sized([...Buffer.from(text)]);

function section(id: number, items: readonly (readonly number[])[]): number[] {
  return [id].concat(sized(u(items.length).concat(...items)));
}

function encodeSignature({ params, results }: Signature): number[] {
  return [0x60, ...u(params.length), ...params, ...u(results.length), ...results];
}

function encodeBody({ locals, code }: FunctionBody): number[] {
  const declared = locals.flatMap((type) => [1, type]);
  return sized([...u(locals.length), ...declared].concat(code.bytes, OP.end));
}
