// More values live at the same time than there are registers:
// they are spilled and reloaded unchanged.
import assert from "node:assert/strict";
import test from "node:test";
import { struct, u64 } from "../abi/layout.ts";
import { decodeProgram } from "../ebpf/instruction.ts";
import { Interpreter } from "../ebpf/interpreter.ts";
import type { Program } from "../ebpf/program.ts";
import { summarise, verify } from "../ebpf/verifier/index.ts";
import { CompileError, compileFunction, parseSource } from "./index.ts";

const BASE = 0x10_0000;
const MOST = 72;
const FIELDS = Object.fromEntries(Array.from({ length: MOST }, (_, i) => [`x${i}`, u64(8 * i)]));
const WORDS = struct("words", 8 * MOST, FIELDS);
const PRELUDE = `import { call, fetchAdd, u32, u64, view, compareExchange } from "../compiler/language.ts";
  declare const WORDS: any;\n`;

const compile = (body: string): Program =>
  compileFunction(parseSource("main.ts", PRELUDE + body), "main", { WORDS });

/** Returns the stack slots that are written, and those that are read. */
function places({ code }: Program): { written: Set<number>; read: Set<number> } {
  const [written, read] = [new Set<number>(), new Set<number>()];
  for (const { encoding, dst, src, offset } of decodeProgram(code)) {
    const { kind } = encoding.operation;
    if (kind === "store" && dst === 10) written.add(offset);
    if (kind === "load" && src === 10) read.add(offset);
  }
  return { written, read };
}

const pattern = (i: number): bigint => BigInt.asUintN(64, BigInt(i + 1) * 0x9e37_79b9_7f4a_7c15n);

/** Runs the program on words with a pattern. @returns the words after it */
function run(program: Program): BigUint64Array {
  const words = BigUint64Array.from({ length: MOST }, (_, i) => pattern(i));
  const regions = [{ name: "context", base: BASE, bytes: new Uint8Array(words.buffer) }];
  const helpers = new Map([[1, (r1: bigint) => r1 * 2n]]);
  new Interpreter(program.code, { regions, helpers, stepLimit: 100_000 }).call(BASE);
  return words;
}

const list = (n: number, each: (i: number) => string): string =>
  Array.from({ length: n }, (_, i) => each(i)).join("\n");

/** Reads the first n words, then stores them in reverse order. */
const reverse = (n: number): string => `export function main(context) {
  const m = view(WORDS, context, 0);
  ${list(n, (i) => `const v${i} = m.x${i};`)}
  ${list(n, (i) => `m.x${i} = v${n - 1 - i};`)}
  return 0;
}`;

for (const [n, spilled] of [
  [8, 0],
  [9, 0],
  [10, 2],
  [20, 12],
  [70, 62],
] as const) {
  test(`program with ${n} live values uses at most ${spilled} stack slots and loses none`, () => {
    const program = compile(reverse(n));
    const { written, read } = places(program);
    assert.deepEqual(written, read);
    assert.ok(written.size <= spilled, `${written.size} places`);
    assert.equal(written.size > 0, spilled > 0);
    const verdict = verify(program, { contextSize: WORDS.size });
    assert.ok(verdict.accepted, summarise(verdict));
    assert.equal(verdict.stack, 8 * written.size);
    const words = run(program);
    for (let i = 0; i < MOST; i++) assert.equal(words[i], pattern(i < n ? n - 1 - i : i));
  });
}

test("compiler refuses more live values than registers and stack hold", () => {
  const tooMany = MOST + 10;
  const body = reverse(tooMany).replace(/m\.x(\d+)/g, (_, i) => `m.x${Number(i) % MOST}`);
  assert.throws(
    () => compile(body),
    (error) =>
      error instanceof CompileError &&
      error.code === "LIMIT" &&
      /^main\.ts:3:8: the stack of 512 bytes is exhausted: keep fewer values/.test(error.message),
  );
});

test("loop variables are spilled with their phis, in one stack slot each", () => {
  const n = 14;
  const program = compile(`export function main(context) {
    const m = view(WORDS, context, 0);
    ${list(n, (i) => `let v${i} = m.x${i};`)}
    for (let i = 0; i < 10; i++) {
      ${list(n, (i) => `v${i} = v${i} * 3n + v${(i + 1) % n};`)}
    }
    ${list(n, (i) => `m.x${i} = v${i};`)}
    return 0;
  }`);
  assert.ok(places(program).written.size <= n);
  const wanted = Array.from({ length: n }, (_, i) => pattern(i));
  for (let round = 0; round < 10; round++) {
    for (let i = 0; i < n; i++)
      wanted[i] = BigInt.asUintN(64, wanted[i]! * 3n + wanted[(i + 1) % n]!);
  }
  assert.deepEqual([...run(program).subarray(0, n)], wanted);
  const verdict = verify(program, { contextSize: WORDS.size });
  assert.ok(verdict.accepted, summarise(verdict));
});

test("values that are live across calls are in R6 to R9 or on the stack", () => {
  const n = 9;
  const program = compile(`function twice(value: u64, plus: u32): u64 {
    "use noinline";
    return value * 2n + u64(plus);
  }
  export function main(context) {
    const m = view(WORDS, context, 0);
    ${list(n, (i) => `const v${i} = m.x${i};`)}
    ${list(n, (i) => `const w${i} = twice(v${(i * 5) % n}, ${i});`)}
    ${list(n, (i) => `m.x${i} = v${i} ^ w${i};`)}
    return 0;
  }`);
  const words = run(program);
  for (let i = 0; i < n; i++) {
    const w = pattern((i * 5) % n) * 2n + BigInt(i);
    assert.equal(words[i], BigInt.asUintN(64, pattern(i) ^ w));
  }
  assert.ok(places(program).written.size > 4);
  const verdict = verify(program, { contextSize: WORDS.size });
  assert.ok(verdict.accepted, summarise(verdict));
});

test("cycle of copies between spilled variables is resolved", () => {
  const n = 12;
  const program = compile(`export function main(context) {
    const m = view(WORDS, context, 0);
    ${list(n, (i) => `let v${i} = m.x${i};`)}
    for (let i = 0; i < 5; i++) {
      const first = v0;
      ${list(n - 1, (i) => `v${i} = v${i + 1};`)}
      v${n - 1} = first;
    }
    ${list(n, (i) => `m.x${i} = v${i};`)}
    return 0;
  }`);
  const words = run(program);
  for (let i = 0; i < n; i++) assert.equal(words[i], pattern((i + 5) % n));
});

test("atomics work on spilled operands, and compare-and-exchange uses R0", () => {
  const n = 12;
  const program = compile(`export function main(context) {
    const m = view(WORDS, context, 0);
    ${list(n, (i) => `const v${i} = m.x${i};`)}
    ${list(n, (i) => `const o${i} = fetchAdd(m.x${i}, v${n - 1 - i});`)}
    ${list(n, (i) => `const p${i} = compareExchange(m.x${i + 20}, ${i % 2 ? `v${i}` : `m.x${i + 20}`}, o${i});`)}
    ${list(n, (i) => `m.x${i + 40} = p${i} + v${i};`)}
    return 0;
  }`);
  const words = run(program);
  for (let i = 0; i < n; i++) {
    assert.equal(words[i], BigInt.asUintN(64, pattern(i) + pattern(n - 1 - i)));
    assert.equal(words[i + 20], i % 2 ? pattern(i + 20) : pattern(i));
    assert.equal(words[i + 40], BigInt.asUintN(64, pattern(i + 20) + pattern(i)));
  }
});
