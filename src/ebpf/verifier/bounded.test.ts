// Verification time is bounded for every program. The first of these took a
// minute; the others have unbounded paths.
import assert from "node:assert/strict";
import test from "node:test";
import { assembleText } from "../text.ts";
import { verify } from "./index.ts";

const numbers = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/**
 * Each block precedes the one that jumps to it, so each iteration of a
 * data-flow analysis advances by one block.
 */
function backwards(): string[] {
  const blocks = numbers(7998).flatMap((i) => [`r0 += r${1 + (i % 5)}`, "goto -4"]);
  return ["goto +15998", "r0 += r1", "exit", ...blocks, "r0 = 0", "goto -4"];
}

/** Repeated two-way branches that leave different numbers on the stack. */
function manyPaths(): string[] {
  const set = numbers(64).map((i) => `*(u64 *)(r10 - ${8 + 8 * i}) = ${i}`);
  const turns = numbers(5000).flatMap((i) => [
    "r0 = *(u32 *)(r6 + 0)",
    `if r0 > ${i} goto +1`,
    `*(u64 *)(r10 - ${8 + 8 * (i % 64)}) = ${i + 1000}`,
  ]);
  const read = numbers(64).map((i) => `r0 = *(u64 *)(r10 - ${8 + 8 * i})`);
  return ["r6 = r1", ...set, ...turns, ...read, "r0 = 0", "exit"];
}

function longLoop(): string[] {
  return ["r0 = 0", "r0 += 1", "if r0 < 1000000000 goto -2", "exit"];
}

/** Four thousand nested loops. */
function nested(): string[] {
  const heads = numbers(4000).map((i) => `r0 += ${i + 1}`);
  const tails = numbers(4000).map((i) => `if r0 < r1 goto -${2 * i + 2}`);
  return ["r0 = 0", "r1 = 0", ...heads, ...tails, "r0 = 0", "exit"];
}

/**
 * CPU time of this process, all threads, independent of other processes.
 * One second, and as much for a cold start.
 */
const LIMIT_MS = 2000;

for (const make of [backwards, manyPaths, longLoop, nested]) {
  test(`verify takes at most two seconds on ${make.name}`, () => {
    const code = assembleText(make());
    const start = process.cpuUsage();
    verify({ name: make.name, code }, { contextSize: 4096 });
    const { user, system } = process.cpuUsage(start);
    assert.ok((user + system) / 1000 < LIMIT_MS, `${(user + system) / 1000} ms`);
  });
}
