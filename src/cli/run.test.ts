import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { writeElf } from "../ebpf/elf-writer.ts";
import { RUNNERS } from "../ebpf/runners.ts";
import { assembleText } from "../ebpf/text.ts";

const MAIN = fileURLToPath(new URL("main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-run-"));
after(() => rmSync(folder, { recursive: true, force: true }));

function bpfhv(args: readonly string[], input = "") {
  return spawnSync(process.execPath, [MAIN, "run", ...args], { input, encoding: "utf8" });
}

/** Adds 1 to the byte at 2, returns the length. */
const COUNT = "r0 = *(u8 *)(r1 + 2)\nr0 += 1\n*(u8 *)(r1 + 2) = r0\nr0 = r2\nexit\n";

for (const engine of RUNNERS) {
  test(`the ${engine} says what r0 is and what changed, after each of several runs`, () => {
    const args = ["-", "--memory", "0a0b0c0d", "--size", "6", "--repeat", "3", "--json"];
    const { stdout, stderr } = bpfhv([...args, "--engine", engine], COUNT);
    const { nanoseconds, ...result } = JSON.parse(stdout || stderr);
    assert.deepEqual(result, {
      program: "stdin",
      engine,
      r0: "0x6",
      executed: 5,
      repeat: 3,
      changed: [{ offset: 2, before: "0c", after: "0f" }],
    });
    assert.ok(nanoseconds > 0);
  });
}

test("memory comes from a file, and the report is for people", () => {
  const file = join(folder, "memory");
  writeFileSync(file, Uint8Array.of(1, 2, 3));
  const { stdout } = bpfhv(["-", "--memory-file", file], COUNT);
  assert.match(stdout, /^r0 {8}0x3 \(3\)\nexecuted {2}5 instructions\ntime .* ns, 1 run \(jit\)\n/);
  assert.match(stdout, /memory {4}2: 03 -> 04\n$/);
});

test("an access out of bounds is reported with its instruction", () => {
  const { stderr, status } = bpfhv(["-", "--memory", "0102"], COUNT);
  assert.equal(status, 1);
  assert.match(
    stderr,
    /stdin: instruction 0: load of 1 bytes at 0x100000002 is outside memory 0x100000000\.\.0x100000002/,
  );
});

test("an endless program ends at the step limit", () => {
  const { stderr, status } = bpfhv(["-", "--step-limit", "500"], "goto -1\n");
  assert.equal(status, 1);
  assert.match(stderr, /instruction 0: still running after 500 instructions/);
});

test("an object of several programs wants a choice", () => {
  const file = join(folder, "two.o");
  const [one, two] = [1, 2].map((n) => assembleText([`r0 = ${n}`, "exit"]));
  writeFileSync(
    file,
    writeElf([
      { name: "txp", code: one! },
      { name: "rxp", code: two! },
    ]),
  );
  const { stderr, status } = bpfhv([file]);
  assert.equal(status, 2);
  assert.match(stderr, /choose one of txp, rxp with --section/);
  assert.match(bpfhv([file, "--section", "rxp"]).stdout, /^r0 {8}0x2 /);
});

test("wrong use is refused with what to do, status 2", () => {
  const wrong: [string[], RegExp][] = [
    [["--memory", "0"], /pairs of hexadecimal digits/],
    [["--memory", "00", "--memory-file", "x"], /either --memory or --memory-file/],
    [["--memory", "0000", "--size", "1"], /less than the 2 bytes/],
    [["--repeat", "0"], /--repeat 0: use a whole number from 1/],
    [["--repeat", "x"], /--repeat x: use a whole number/],
    [["--engine", "qemu"], /Allowed choices are interpreter, jit/],
  ];
  for (const [args, message] of wrong) {
    const { stderr, status } = bpfhv(["-", ...args], COUNT);
    assert.match(stderr, message);
    assert.equal(status, 2, stderr);
  }
});
