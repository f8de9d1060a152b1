// Calls out of line: accepted by the verifier, with equal results in
// interpreter and WebAssembly, and inlined.
import assert from "node:assert/strict";
import test from "node:test";
import { GIVEN, testSource } from "../../test/support/compiler.ts";
import { PRIVATE_OFFSET } from "../abi/index.ts";
import { decodeProgram } from "../ebpf/instruction.ts";
import { Interpreter } from "../ebpf/interpreter.ts";
import { LinearMemory } from "../ebpf/jit/linear-memory.ts";
import type { Program } from "../ebpf/program.ts";
import { createRunner, RUNNERS } from "../ebpf/runners.ts";
import { summarise, verify } from "../ebpf/verifier/index.ts";
import { CompileError, compileFunction, parseSource, type Source } from "./index.ts";
import { NOINLINE } from "./out-of-line.ts";

const BASE = 0x10_0000;
const SIZE = 4096;

function contextOf(memory: LinearMemory, seed: number): Uint8Array {
  const bytes = memory.allocate(SIZE);
  for (let i = 0; i < 16; i++) bytes[PRIVATE_OFFSET + i] = (seed * (i + 1) * 0x9e3779b1) >>> 24;
  return bytes;
}

function callsIn({ code }: Program): number {
  return decodeProgram(code).filter(({ encoding: { operation } }) => {
    return operation.kind === "call" && operation.target === "local";
  }).length;
}

/** Returns results and contexts of a program on some contexts, by one runner. */
function effects({ code }: Program, engine: (typeof RUNNERS)[number]): string[] {
  return [1, 2, 3, 77, 1001].map((seed) => {
    const memory = new LinearMemory(SIZE);
    const bytes = contextOf(memory, seed);
    const regions = [{ name: "context", base: BASE, bytes }];
    const machine = createRunner(engine, code, { memory, regions });
    return `${machine.call(BASE)} ${Buffer.from(bytes).toString("hex")}`;
  });
}

const withoutDirective = ({ file, text }: Source): Source =>
  parseSource(file, text.replaceAll(`"${NOINLINE}";`, ""));

test("program with out-of-line calls verifies and gives the same results as inlined in every runner", () => {
  const source = testSource("noinline.ts");
  const program = compileFunction(source, "main", GIVEN);
  const inlined = compileFunction(withoutDirective(source), "main", GIVEN);
  assert.equal(callsIn(program), 5);
  assert.equal(callsIn(inlined), 0);
  const verdict = verify(program, { contextSize: SIZE });
  assert.ok(verdict.accepted, summarise(verdict));
  assert.equal(verdict.stack, 64);
  const wanted = effects(inlined, "interpreter");
  assert.equal(new Set(wanted).size, wanted.length);
  for (const engine of RUNNERS) assert.deepEqual(effects(program, engine), wanted, engine);
});

const PRELUDE = `
  import { type Context, i32, stack, u32, u64, view } from "../compiler/language.ts";
  import { CONTEXT } from "../abi/index.ts";
  declare const RING: any;
`;
const compile = (text: string): Program =>
  compileFunction(parseSource("main.ts", PRELUDE + text), "main", GIVEN);

test("function is compiled once when it is called several times, and never when it is not called", () => {
  const program = compile(`
    function thrice(value: u32): u32 { "use noinline"; return value * 3; }
    function never(value: u32): u32 { "use noinline"; return value * 5; }
    export function main(context: Context): number {
      const shared = view(CONTEXT, context, 0);
      if (RING.size === 1) return i32(never(shared.num_bufs));
      return i32(thrice(shared.num_bufs) + thrice(shared.iflags));
    }
  `);
  const alu = decodeProgram(program.code).filter(({ encoding: { operation: o } }) => {
    return o.kind === "alu" && o.op === "mul";
  });
  assert.deepEqual(
    alu.map((i) => i.imm),
    [3],
  );
  assert.equal(callsIn(program), 2);
});

test("narrow result of a called function is canonical in the whole register", () => {
  const { code } = compile(`
    function low(value: u64): u32 { "use noinline"; return u32(value); }
    export function main(context: Context): number {
      const ring = view(RING, context, 0);
      ring.total = u64(low(ring.total));
      return 0;
    }
  `);
  const bytes = new Uint8Array(SIZE).fill(0xa5, 0, 16);
  new Interpreter(code, { regions: [{ name: "context", base: BASE, bytes }] }).call(BASE);
  assert.equal(Buffer.from(bytes.subarray(8, 16)).toString("hex"), "a5a5a5a500000000");
});

const frame = (name: string, structs: number, then: string): string => `
  function ${name}(value: u32): u32 {
    "use noinline";
    ${Array.from({ length: structs }, (_, i) => `const s${i} = stack(RING); s${i}.packed = value;`).join("\n")}
    return ${then};
  }`;

test("frames of nested functions share 512 bytes of stack", () => {
  const main =
    "export function main(context: Context): number { return i32(f(view(CONTEXT, context, 0).num_bufs)); }";
  // 32 for main, then 4 and 3 structs of 64 bytes: 480. One more exceeds the limit.
  const program = compile(frame("f", 4, "g(s0.packed)") + frame("g", 3, "s2.packed") + main);
  const verdict = verify(program, { contextSize: SIZE });
  assert.ok(verdict.accepted, summarise(verdict));
  assert.equal(verdict.stack, 480);
  assert.throws(
    () => compile(frame("f", 4, "g(s0.packed)") + frame("g", 4, "s2.packed") + main),
    (error) =>
      error instanceof CompileError &&
      error.code === "LIMIT" &&
      /^main\.ts:\d+:\d+: 544 bytes of stack .*main > f > g/.test(error.message),
  );
});
