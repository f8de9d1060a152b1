import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { TextError } from "../errors.ts";
import type { RunnerName } from "../runners.ts";
import { assembleText, disassemble } from "../text.ts";
import { parseCase } from "./case.ts";
import { assembleSuiteText } from "./dialect.ts";
import { RUNNERS } from "./engines.ts";
import { runCase } from "./run.ts";

const FOLDER = fileURLToPath(new URL("../../../../../shared/conformance", import.meta.url));
const here = existsSync(FOLDER);
const files = here ? readdirSync(FOLDER).filter((file) => file.endsWith(".data")) : [];

for (const engine of Object.keys(RUNNERS) as RunnerName[]) {
  test(`cases of the conformance suite pass on the ${engine}`, {
    skip: here ? false : `the suite's cases are not at ${FOLDER}`,
  }, () => {
    assert.ok(files.length > 200);
    const failed = files.filter(
      (file) => !runCase(readFileSync(join(FOLDER, file), "utf8"), RUNNERS[engine]).passed,
    );
    assert.deepEqual(failed, []);
  });

  test(`non-zero reserved field is refused by the ${engine}`, () => {
    for (const [name, word] of REFUSED) {
      const text = `-- raw\n${word}\n95 00 00 00 00 00 00 00\n-- error\n`;
      const verdict = runCase(text, RUNNERS[engine]);
      assert.ok(verdict.passed, `${name}: ${verdict.detail}`);
      assert.match(verdict.detail, /^instruction 0: /, name);
    }
  });
}

/** Written by hand from RFC 9669: each is valid except for one field that is not zero. */
const REFUSED: readonly (readonly [string, string])[] = [
  ["add64 imm, src", "07 10 00 00 01 00 00 00"],
  ["add64 imm, offset", "07 00 01 00 01 00 00 00"],
  ["add64 reg, imm", "0f 10 00 00 01 00 00 00"],
  ["add64 reg, offset", "0f 10 02 00 00 00 00 00"],
  ["add32 imm, src", "04 10 00 00 01 00 00 00"],
  ["add32 imm, offset", "04 00 01 00 01 00 00 00"],
  ["add32 reg, imm", "0c 10 00 00 01 00 00 00"],
  ["add32 reg, offset", "0c 10 01 00 00 00 00 00"],
  ["mov64 imm, src", "b7 10 00 00 01 00 00 00"],
  ["mov64 imm, offset 8: only registers are sign extended", "b7 00 08 00 01 00 00 00"],
  ["mov64 reg, imm", "bf 10 00 00 01 00 00 00"],
  ["mov64 reg, offset 7", "bf 10 07 00 00 00 00 00"],
  ["mov32 imm, src", "b4 10 00 00 01 00 00 00"],
  ["mov32 imm, offset", "b4 00 10 00 01 00 00 00"],
  ["mov32 reg, imm", "bc 10 00 00 01 00 00 00"],
  ["mov32 reg, offset 32: that is a plain move", "bc 10 20 00 00 00 00 00"],
  ["div64, offset 2", "37 00 02 00 03 00 00 00"],
  ["mod32, offset -1", "94 00 ff ff 03 00 00 00"],
  ["neg64, src", "87 10 00 00 00 00 00 00"],
  ["neg64, offset", "87 00 01 00 00 00 00 00"],
  ["neg64, imm", "87 00 00 00 01 00 00 00"],
  ["neg64 with the source bit", "8f 00 00 00 00 00 00 00"],
  ["neg32, src", "84 10 00 00 00 00 00 00"],
  ["neg32, imm", "84 00 00 00 01 00 00 00"],
  ["be16, src", "dc 10 00 00 10 00 00 00"],
  ["be16, offset", "dc 00 01 00 10 00 00 00"],
  ["le16, src", "d4 10 00 00 10 00 00 00"],
  ["le16, offset", "d4 00 01 00 10 00 00 00"],
  ["be24", "dc 00 00 00 18 00 00 00"],
  ["bswap with the source bit", "df 00 00 00 10 00 00 00"],
  ["ja, dst", "05 01 00 00 00 00 00 00"],
  ["ja, src", "05 10 00 00 00 00 00 00"],
  ["ja, imm", "05 00 00 00 01 00 00 00"],
  ["ja with the source bit", "0d 00 00 00 00 00 00 00"],
  ["gotol, offset", "06 00 01 00 00 00 00 00"],
  ["jeq imm, src", "15 10 00 00 01 00 00 00"],
  ["jeq reg, imm", "1d 10 00 00 01 00 00 00"],
  ["jgt32 imm, src", "26 10 00 00 01 00 00 00"],
  ["jgt32 reg, imm", "2e 10 00 00 01 00 00 00"],
  ["exit, dst", "95 01 00 00 00 00 00 00"],
  ["exit, src", "95 10 00 00 00 00 00 00"],
  ["exit, offset", "95 00 01 00 00 00 00 00"],
  ["exit, imm", "95 00 00 00 01 00 00 00"],
  ["exit of class JMP32", "96 00 00 00 00 00 00 00"],
  ["call of class JMP32", "86 00 00 00 05 00 00 00"],
  ["call, dst", "85 01 00 00 05 00 00 00"],
  ["call, offset", "85 00 01 00 05 00 00 00"],
  ["call, src 3", "85 30 00 00 00 00 00 00"],
  ["callx, imm: the form of older compilers", "8d 00 00 00 02 00 00 00"],
  ["ldxw, imm", "61 10 00 00 01 00 00 00"],
  ["ldxdw, imm", "79 10 00 00 01 00 00 00"],
  ["ldxsw, imm", "81 10 00 00 01 00 00 00"],
  ["ldxsdw: there is none", "99 10 00 00 00 00 00 00"],
  ["stw, src", "62 1a fc ff 01 00 00 00"],
  ["stdw, src", "7a 1a f8 ff 01 00 00 00"],
  ["stxw, imm", "63 0a fc ff 01 00 00 00"],
  ["stxdw, imm", "7b 0a f8 ff 01 00 00 00"],
  ["atomic of one byte", "d3 0a f8 ff 00 00 00 00"],
  ["atomic of two bytes", "cb 0a f8 ff 00 00 00 00"],
  ["atomic subtraction: there is none", "db 0a f8 ff 10 00 00 00"],
  ["exchange without fetch", "db 0a f8 ff e0 00 00 00"],
  ["lddw, offset", "18 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00"],
  ["lddw, src 7", "18 70 00 00 00 00 00 00 00 00 00 00 00 00 00 00"],
  ["lddw, opcode in the second half", "18 00 00 00 00 00 00 00 07 00 00 00 00 00 00 00"],
  ["lddw, dst in the second half", "18 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00"],
  ["lddw, offset in the second half", "18 00 00 00 00 00 00 00 00 00 01 00 00 00 00 00"],
  ["lddw of a map, second half", "18 10 00 00 00 00 00 00 00 00 00 00 01 00 00 00"],
  ["r11 as destination", "b7 0b 00 00 01 00 00 00"],
  ["r15 as source", "bf f0 00 00 00 00 00 00"],
  ["a write to r10", "b7 0a 00 00 01 00 00 00"],
  ["a fetch into r10", "db aa f8 ff 01 00 00 00"],
  ["a jump out of the program", "05 00 7f 00 00 00 00 00"],
  ["a jump before the program", "05 00 f0 ff 00 00 00 00"],
  ["opcode 0", "00 00 00 00 00 00 00 00"],
  ["opcode 0xff", "ff 00 00 00 00 00 00 00"],
];

test("case fails with the reason when expectation or program is missing or a section is unknown", () => {
  for (const [text, reason] of [
    ["-- asm\nexit\n", /neither/],
    ["-- result\n0\n", /no program/],
    ["-- asm\nexit\n-- results\n0\n", /unknown section "results"/],
    ["-- asm\nmov %r0\n-- result\n0\n", /line 1, column 8: expected ","/],
    ["-- asm\nmov %r0, 1\nexit\n-- result\n0x2\n", /r0 is 0x1, not 0x2/],
    ["-- raw\n9500000000000000zz\n-- error\n", /neither a 64-bit word/],
    ["-- asm\nmov %r0, 1\nexit\n-- error\n", /should be refused/],
  ] as const) {
    const { passed, skipped, detail } = runCase(text, RUNNERS.interpreter);
    assert.deepEqual([passed, skipped], [false, undefined], text);
    assert.match(detail, reason);
  }
});

test("case is skipped with the reason when it needs maps", () => {
  const text = "-- map\nm 2 4 4 1\n-- asm\nlddw r1, map_by_fd(m)\nexit\n-- result\n0\n";
  const { skipped, detail } = runCase(text, RUNNERS.interpreter);
  assert.equal(skipped, true);
  assert.match(detail, /^needs maps/);
});

test("raw words override asm, and all 64 bits of the result are compared", () => {
  const text =
    "-- asm\nexit\n-- raw\n0x5566778800000018\n0x1122334400000000\n0x0000000000000095\n-- result\n";
  assert.ok(runCase(`${text}0x1122334455667788`, RUNNERS.interpreter).passed);
  assert.ok(!runCase(`${text}0x55667788`, RUNNERS.interpreter).passed);
  assert.equal(parseCase(`${text}-1`).expected, 2n ** 64n - 1n);
});

test("r1 and r2 are address and length of the memory, or 0 without memory", () => {
  const memory = "-- mem\n0a 0b\n0c\n";
  assert.ok(
    runCase(`-- asm\nmov %r0, %r2\nexit\n${memory}-- result\n3`, RUNNERS.interpreter).passed,
  );
  assert.ok(
    runCase(`-- asm\nldxb %r0, [%r1+2]\nexit\n${memory}-- result\n0xc`, RUNNERS.interpreter).passed,
  );
  assert.ok(
    runCase("-- asm\nmov %r0, %r1\nor %r0, %r2\nexit\n-- result\n0", RUNNERS.interpreter).passed,
  );
});

/** The suite's dialect and the kernel's, with equal meaning. */
const SAME: readonly (readonly [string, string])[] = [
  ["mov32 r1, -1", "w1 = -1"],
  ["smod %r1, %r2", "r1 s%= r2"],
  ["movsx3264 %r0, %r1", "r0 = (s32)r1"],
  ["neg64 %r3", "r3 = -r3"],
  ["le32 %r4", "r4 = le32 r4"],
  ["swap16 %r4", "r4 = bswap16 r4"],
  ["ldxsh %r1, [%r2 - 4]", "r1 = *(s16 *)(r2 - 4)"],
  ["stxb [%r1+0x10], %r9", "*(u8 *)(r1 + 16) = r9"],
  ["sth [%r1], 0xffffffff", "*(u16 *)(r1 + 0) = -1"],
  ["lock fetch xor32 [%r1+4], %r2", "w2 = atomic_fetch_xor((u32 *)(r1 + 4), w2)"],
  ["lock and [%r1], %r2", "lock *(u64 *)(r1 + 0) &= r2"],
  ["jsgt32 %r1, %r2, -1", "if w1 s> w2 goto -1"],
  ["ja32 +70000", "gotol +70000"],
  ["call runtime 7", "call btf 7"],
  ["call %r2", "callx r2"],
  ["lddw %r1, map_val_by_fd(3, 8)", "r1 = map_val_by_fd(3, 8)"],
];

test("suite's dialect assembles to the same code as the kernel's", () => {
  for (const [suite, kernel] of SAME) {
    assert.deepEqual(disassemble(assembleSuiteText(suite)), [`   0: ${kernel}`], suite);
  }
});

test("labels resolve in both directions, across wide loads, and to the first exit", () => {
  const code = assembleSuiteText("top: lddw %r0, 1\njeq %r0, 1, exit\nja top\nexit\nexit");
  assert.deepEqual(disassemble(code).slice(1, 3), ["   2: if r0 == 1 goto +1", "   3: goto -4"]);
});

test("any text in the suite's dialect is assembled or refused with its place", () => {
  const words =
    "mov add32 lddw ldxw stxb lock fetch xchg call local ja32 jeq exit %r1 %r10 %r11 [%r1+8] , # x: x -1 0x10 99999999999 é";
  const word = fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(...words.split(" "), ...SAME.map(([suite]) => suite)) },
    fc.string(),
  );
  const line = fc.array(word, { maxLength: 6 }).map((list) => list.join(" "));
  let good = 0;
  fc.assert(
    fc.property(fc.array(line, { maxLength: 3 }), (lines) => {
      try {
        const code = assembleSuiteText(lines);
        assert.deepEqual(assembleText(disassemble(code)), code);
        good++;
      } catch (error) {
        assert.ok(error instanceof TextError, `${error}`);
        assert.ok(error.line >= 1 && error.line <= lines.length && error.column >= 1);
      }
    }),
    { numRuns: 3000, seed: 20260403 },
  );
  assert.ok(good > 100 && good < 3000, `${good}`);
});

test("errors have line and column", () => {
  for (const [text, message] of [
    ["exit\nmov %r11, 1", /^line 2, column 5: there is no register r11/],
    ["mov %r0 1", /^line 1, column 9: expected ",", found "1"/],
    ["frob %r0", /^line 1, column 1: unknown instruction frob/],
    ["mov32 %r0, 2147483648", /^line 1, column 12: immediate 2147483648 is not within/],
    ["mov32 %r0, 0x100000000", /^line 1, column 12: immediate 0x100000000 is not within/],
    ["ldxb %r0, [%r1+0x10000]", /^line 1, column 15: offset \+0x10000 is not within/],
    ["ja nowhere", /^line 1, column 4: label nowhere is not defined/],
    ["a: exit\na: exit", /^line 2, column 1: label a is defined twice/],
    ["exit 1", /^line 1, column 6: expected the end of the line/],
    ["lock neg [%r1], %r2", /^line 1, column 6: unknown atomic operation neg/],
    ["lock", /^line 1, column 5: expected an atomic operation, found the end of the line/],
    ["ldxsdw %r0, [%r1]", /no sign-extending load of 8 bytes/],
    ["movsx3232 %r0, %r1", /a sign extension needs a wider target/],
    ["call frob 1", /^line 1, column 6: expected helper/],
    ["lddw %r1, map_by_fd(x)", /^line 1, column 21: expected immediate, found "x"/],
  ] as const) {
    assert.throws(() => assembleSuiteText(text), { code: "ASSEMBLY", message }, text);
  }
});
