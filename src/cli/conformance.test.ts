import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { writeElf } from "../ebpf/elf-writer.ts";

const MAIN = fileURLToPath(new URL("main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-conformance-"));
after(() => rmSync(folder, { recursive: true, force: true }));

function bpfhv(args: readonly string[], input = "") {
  return spawnSync(process.execPath, [MAIN, "conformance", ...args], { input, encoding: "utf8" });
}

function cases(name: string, files: Readonly<Record<string, string>>): string {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(path, file), text);
  return path;
}

const GOOD = "-- asm\nmov %r0, 1\nexit\n-- result\n0x1\n";
const REFUSED = "-- raw\n95 00 00 00 01 00 00 00\n-- error\n";
const ATOMIC = "-- asm\nmov %r0, 0\nlock add [%r10-8], %r0\nexit\n-- result\n0\n";

test("a folder of good and refused cases passes, status 0", () => {
  const { stdout, status } = bpfhv([
    "--cases",
    cases("good", { "a.data": GOOD, "b.data": REFUSED }),
  ]);
  assert.equal(stdout, "2 passed, 0 failed\n");
  assert.equal(status, 0);
});

test("a case that fails is named with the reason, status 1", () => {
  const wrong = GOOD.replace("0x1", "0x2");
  const path = cases("bad", { "a.data": GOOD, "wrong.data": wrong });
  const { stdout, status } = bpfhv(["--cases", path]);
  assert.equal(stdout, "FAIL wrong: r0 is 0x1, not 0x2\n1 passed, 1 failed\n");
  assert.equal(status, 1);
  const { cases: list, ...counts } = JSON.parse(bpfhv(["--cases", path, "--json"]).stdout);
  assert.deepEqual(counts, { engine: "interpreter", passed: 1, failed: 1, skipped: 0 });
  assert.deepEqual(list[1], {
    name: "wrong",
    passed: false,
    groups: ["base64", "base32"],
    detail: "r0 is 0x1, not 0x2",
  });
});

test("a case that needs maps is named as skipped, status 0", () => {
  const map = "-- map\nm 2 4 4 1\n-- asm\nlddw r1, map_by_fd(m)\nexit\n-- result\n0\n";
  const path = cases("maps", { "a.data": GOOD, "map.data": map });
  const { stdout, status } = bpfhv(["--cases", path]);
  assert.match(stdout, /^SKIP map: needs maps .*\n1 skipped\n1 passed, 0 failed\n$/);
  assert.equal(status, 0);
  const { cases: _, ...counts } = JSON.parse(bpfhv(["--cases", path, "--json"]).stdout);
  assert.deepEqual(counts, { engine: "interpreter", passed: 1, failed: 0, skipped: 1 });
});

test("the built-in cases run when no folder is given", () => {
  for (const engine of ["interpreter", "jit"]) {
    const { stdout, status } = bpfhv(["--json", "--engine", engine]);
    const { passed, failed, skipped } = JSON.parse(stdout);
    assert.equal(status, 0);
    assert.deepEqual([failed, skipped], [0, 0]);
    assert.ok(passed > 500, `${passed} passed`);
  }
});

test("a folder of cases in the built-in form is run; a malformed line is reported", () => {
  const path = cases("lines", { "a.txt": "# two\n0x1 = mov r0, 1\n0x2 = mov r0, 1\n" });
  const { stdout, status } = bpfhv(["--cases", path]);
  assert.equal(stdout, "FAIL a:3: r0 is 0x1, not 0x2\n1 passed, 1 failed\n");
  assert.equal(status, 1);
  const wrong = bpfhv(["--cases", cases("no-lines", { "notes.txt": "hello\n" })]);
  assert.match(
    wrong.stderr,
    /^bpfhv: .*notes\.txt: "hello" is not "R0 = instruction; … \[@ memory\]"\n$/,
  );
  assert.equal(wrong.status, 1);
});

test("a folder whose cases are all skipped proves nothing, status 1", () => {
  const map = "-- map\nm 2 4 4 1\n-- asm\nexit\n-- result\n0\n";
  const { stdout, status } = bpfhv(["--cases", cases("all-maps", { "map.data": map })]);
  assert.match(stdout, /1 skipped\n0 passed, 0 failed\n$/);
  assert.equal(status, 1);
});

test("--group keeps the cases that use it", () => {
  const path = cases("groups", { "a.data": GOOD, "b.data": ATOMIC });
  assert.equal(bpfhv(["--cases", path, "--group", "atomic64"]).stdout, "1 passed, 0 failed\n");
  assert.equal(bpfhv(["--cases", path, "--group", "callx"]).status, 1);
  assert.equal(bpfhv(["--cases", path, "--group", "frob"]).status, 2);
});

/** r0 = *(u16 *)(r1 + 1); exit, as the runner writes it. */
const PROGRAM = "69 10  01 00  00 00 00 00  95 00 00 00 00 00 00 00 \n";

test("as a plugin it prints r0 in hexadecimal", () => {
  const { stdout, status } = bpfhv(["--plugin", "aa  bb  cc  "], PROGRAM);
  assert.deepEqual([stdout, status], ["ccbb\n", 0]);
});

test("as a plugin it takes an object with --elf", () => {
  const code = Uint8Array.from(Buffer.from(PROGRAM.replace(/\s/g, ""), "hex"));
  const object = Buffer.from(writeElf([{ name: ".text", code }])).toString("hex");
  const { stdout, status } = bpfhv(["--plugin", "aa bb cc", "--elf"], object);
  assert.deepEqual([stdout, status], ["ccbb\n", 0]);
  const broken = bpfhv(["--plugin", "--elf"], "00 11");
  assert.deepEqual([broken.stderr, broken.status], ["bpfhv: not an ELF file\n", 1]);
});

test("the runner's way of starting a plugin works: memory first, options behind it", () => {
  const script = fileURLToPath(new URL("../../../script/conformance-plugin", import.meta.url));
  const run = (...args: string[]) => spawnSync(script, args, { input: PROGRAM, encoding: "utf8" });
  assert.equal(run("aa  bb  cc  ").stdout, "ccbb\n");
  assert.equal(run("aa  bb  cc  ", "--engine", "jit").stdout, "ccbb\n");
  assert.equal(run().status, 1);
});

test("as a plugin it says why a program is refused, status 1", () => {
  const { stdout, stderr, status } = bpfhv(["--plugin"], PROGRAM.replace("95 00", "95 01"));
  assert.deepEqual([stdout, status], ["", 1]);
  assert.match(stderr, /^bpfhv: instruction 1: dst is 1, but opcode 0x95 does not use it/);
  const outside = bpfhv(["--plugin", "aa bb"], PROGRAM);
  assert.equal(outside.status, 1);
  assert.match(outside.stderr, /load of 2 bytes at 0x10000001 is outside/);
});

test("wrong use is told, status 2", () => {
  for (const args of [["stray"], ["--plugin", "--cases", folder], ["--plugin", "xyz"]]) {
    const { stderr, status } = bpfhv(args, PROGRAM);
    assert.equal(status, 2, args.join(" "));
    assert.match(stderr, /^(bpfhv|error): /);
  }
  assert.equal(bpfhv(["--cases", join(folder, "absent")]).status, 1);
});
