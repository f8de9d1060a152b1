/** Runs the example of this folder's README. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const README = new URL("../../../src/ebpf/README.md", import.meta.url);

test("README's ten lines assemble, verify, run and disassemble a program", () => {
  const code = /```ts\n(.*?)```/s.exec(readFileSync(README, "utf8"))?.[1] ?? "";
  assert.ok(code.split("\n").length <= 11);
  const here = code.replace('"bpfhv/ebpf"', JSON.stringify(new URL("index.js", import.meta.url)));
  const args = ["--input-type=module", "--eval", here];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: "utf8" });
  assert.deepEqual([status, stderr], [0, ""]);
  assert.equal(
    stdout,
    `double: accepted: 3 instructions, at most 3 executed, 0 bytes of stack
42n
   0: r0 = *(u32 *)(r1 + 4)
   1: r0 *= 2
   2: exit
`,
  );
});
