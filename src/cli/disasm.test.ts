import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { assembleText } from "../ebpf/text.ts";

const MAIN = fileURLToPath(new URL("main.js", import.meta.url));
const OBJECT = fileURLToPath(
  new URL("../../../src/ebpf/testdata/calls.clang-19.o", import.meta.url),
);

function disasm(args: readonly string[], input: string | Uint8Array = "") {
  return spawnSync(process.execPath, [MAIN, "disasm", ...args], { input, encoding: "utf8" });
}

const HEX = "b7000000 01000000\n9500000000000000\n";
const LISTING = "; stdin\n   0: r0 = 1\n   1: exit\n";

test("hexadecimal, raw bytes and text of one program give the same listing", () => {
  const raw = Buffer.from(HEX.replace(/\s/g, ""), "hex");
  for (const input of [HEX, raw, "r0 = 1 ; one\nexit\n", LISTING]) {
    assert.equal(disasm(["-"], input).stdout, LISTING);
  }
  assert.equal(disasm(["--format", "text", "-"], "exit\n").stdout, "; stdin\n   0: exit\n");
});

test("an object gives its programs, one section if asked, with source lines if asked", () => {
  assert.match(disasm([OBJECT]).stdout, /^; txp\n.*\n\n; rxc\n/s);
  const { stdout, status } = disasm(["--section", "rxc", "--source", OBJECT]);
  assert.equal(status, 0);
  assert.match(stdout, /^; rxc\n; \.\/calls\.c:24: return mix\(context\[1\], 3\);\n {3}0: r1 = /);
});

const TESTDATA = new URL("../../../src/ebpf/testdata/", import.meta.url);
const GLOBALS = readFileSync(new URL("globals.clang-19.o", TESTDATA));

test("disasm names maps, data and functions when an object needs a loader", () => {
  const { stdout, stderr, status } = disasm(["-"], GLOBALS);
  assert.deepEqual([status, stderr], [0, ""]);
  const listing =
    "; global\n   0: r1 = address(.data) ll\n   2: r0 = *(u32 *)(r1 + 0)\n   3: exit\n\n" +
    "; elsewhere\n   0: w1 = 1\n   1: call extern(unknown)\n   2: exit\n";
  assert.equal(stdout, listing);
  const maps = Buffer.from(
    GLOBALS.toString("latin1").replaceAll("\0.data\0", "\0.maps\0"),
    "latin1",
  );
  assert.match(disasm(["-"], maps).stdout, / 0: r1 = map\(\.maps\) ll\n/);
  const [program] = JSON.parse(disasm(["--json", "-"], GLOBALS).stdout);
  assert.equal(program.instructions[0].text, "r1 = address(.data) ll");
});

test("what disasm prints of a reference assembles to the object's bytes", () => {
  const text = "r1 = address(.data) ll\nr0 = *(u32 *)(r1 + 0)\nexit\n";
  const code = Buffer.from(assembleText(text));
  assert.ok(GLOBALS.includes(code));
  assert.equal(
    Buffer.from(assembleText("r2 = map(a + 8) ll")).toString("hex", 0, 8),
    "1802000008000000",
  );
  assert.equal(
    Buffer.from(assembleText("call extern(f)\nexit")).toString("hex", 0, 8),
    "85100000ffffffff",
  );
  assert.throws(() => assembleText("r2 = map(a + 4294967296) ll"), /more than 32 bits/);
});

test("disasm shows the other programs when one of an object is broken", () => {
  const at = GLOBALS.indexOf(Buffer.from(assembleText("w1 = 1")));
  const broken = Buffer.from(GLOBALS);
  broken[at] = 0xff;
  const { stdout, stderr, status } = disasm(["-"], broken);
  assert.equal(status, 1);
  assert.match(stdout, /^; global\n {3}0: r1 = address\(\.data\) ll\n/);
  assert.match(stderr, /elsewhere, function \w+: instruction 0: /);
});

test("--json has fields and source of each instruction", () => {
  const programs = JSON.parse(disasm(["--section", "rxc", "--json", OBJECT]).stdout);
  assert.equal(programs.length, 1);
  const [first] = programs[0].instructions;
  assert.equal(first.source.line, 24);
  assert.deepEqual(
    [first.slot, first.text, first.opcode, first.dst, first.src, first.offset, first.group],
    [0, "r1 = *(u64 *)(r1 + 8)", 0x79, 1, 1, 8, "base64"],
  );
});

test("what cannot be shown is reported in one line", () => {
  for (const [args, input, message, wanted] of [
    [["-"], "", /^bpfhv: -: there is nothing in it\n$/, 1],
    [["/absent"], "", /^bpfhv: cannot read \/absent: ENOENT\n$/, 1],
    [["-"], "ff00000000000000", /^bpfhv: stdin: instruction 0: unknown opcode 0xff\n$/, 1],
    [["-"], "r0 = r11", /^bpfhv: -: .*r0 = r11/, 1],
    [["--section", "txp", "-"], HEX, /^bpfhv: --section is for ELF objects, and - is hex\n$/, 2],
    [["--section", "rxp", OBJECT], "", /no section with code and no function is called "rxp"/, 1],
    [["-"], "\x7fELF", /^bpfhv: -: not an ELF file\n$/, 1],
  ] as const) {
    const { stderr, stdout, status } = disasm(args, input);
    assert.match(stderr, message);
    assert.deepEqual([stdout, status], ["", wanted]);
  }
});
