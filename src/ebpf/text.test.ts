import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { TextError } from "./errors.ts";
import { encodeProgram, makeInstruction } from "./instruction.ts";
import { ENCODINGS } from "./opcode.ts";
import { assembleText, disassemble } from "./text.ts";

const bytes = (hex: string): Uint8Array => Buffer.from(hex.replaceAll(" ", ""), "hex");

/** Text, and its bytes from clang's assembler. */
const PAIRS: [string, string][] = [
  ["r0 = *(u64 *)(r1 + 8)", "79 10 0800 00000000"],
  ["r3 = *(s16 *)(r2 - 2)", "89 23 feff 00000000"],
  ["*(u32 *)(r10 - 4) = r1", "63 1a fcff 00000000"],
  ["*(u8 *)(r1 + 24) = -7", "72 01 1800 f9ffffff"],
  ["r1 += r2", "0f 21 0000 00000000"],
  ["w1 s/= 3", "34 01 0100 03000000"],
  ["r5 s>>= 63", "c7 05 0000 3f000000"],
  ["w4 = -w4", "84 04 0000 00000000"],
  ["r0 = (s8)r1", "bf 10 0800 00000000"],
  ["r2 = be16 r2", "dc 02 0000 10000000"],
  ["r2 = bswap64 r2", "d7 02 0000 40000000"],
  ["if r1 s< 5 goto +3", "c5 01 0300 05000000"],
  ["if w1 & w2 goto -2", "4e 21 feff 00000000"],
  ["goto +1", "05 00 0100 00000000"],
  ["gotol +70000", "06 00 0000 70110100"],
  ["call 12", "85 00 0000 0c000000"],
  ["call pc+3", "85 10 0000 03000000"],
  ["exit", "95 00 0000 00000000"],
  ["r1 = 0x1122334455667788 ll", "18 01 0000 88776655 00 00 0000 44332211"],
  ["lock *(u64 *)(r1 + 0) += r2", "db 21 0000 00000000"],
  ["w2 = atomic_fetch_or((u32 *)(r1 + 4), w2)", "c3 21 0400 41000000"],
  ["r2 = xchg((u64 *)(r1 - 8), r2)", "db 21 f8ff e1000000"],
  ["r0 = cmpxchg((u64 *)(r1 + 0), r0, r2)", "db 21 0000 f1000000"],
];

for (const [text, hex] of PAIRS) {
  test(`${text} assembles and disassembles`, () => {
    assert.deepEqual(Buffer.from(assembleText(text)), bytes(hex));
    assert.deepEqual(disassemble(bytes(hex)), [`   0: ${text}`]);
  });
}

test("disassembled code assembles to the same bytes for every encoding", () => {
  const field = (low: number, high: number) => fc.integer({ min: low, max: high });
  const instruction = fc.record({
    encoding: fc.constantFrom(...ENCODINGS),
    dst: field(0, 10),
    src: field(0, 10),
    offset: field(-0x8000, 0x7fff),
    imm: field(-0x80000000, 0x7fffffff),
    high: field(-0x80000000, 0x7fffffff),
  });
  fc.assert(
    fc.property(fc.array(instruction, { minLength: 1, maxLength: 20 }), (list) => {
      const made = list.map(({ encoding, ...fields }) =>
        makeInstruction(encoding.operation, fields),
      );
      const code = encodeProgram(made);
      assert.deepEqual(assembleText(disassemble(code)), code);
    }),
    { numRuns: 2000 },
  );
});

test("comments, positions and empty lines are ignored", () => {
  const code = assembleText("  0: r0 = 1 ; one\n\n   1: exit\n");
  assert.deepEqual(Buffer.from(code), bytes("b7 00 0000 01000000 95 00 0000 00000000"));
});

/** Other spellings: of clang, of llvm-objdump, of the kernel's log. */
const SPELLINGS: readonly (readonly [string, string])[] = [
  ["  12:\t79 10 08 00 00 00 00 00\tr0 = *(u64 *)(r1 + 0x8)", "r0 = *(u64 *)(r1 + 8)"],
  ["3: (b7) r1 = 5", "r1 = 5"],
  ["r0 = *(u32*)(r1 +8)", "r0 = *(u32 *)(r1 + 8)"],
  ["w0 = *(u8 *)(r1 - 0x2)", "r0 = *(u8 *)(r1 - 2)"],
  ["*(u16 *)(r1) = w2", "*(u16 *)(r1 + 0) = r2"],
  ["if r1 != 0xffffffff goto pc-2", "if r1 != -1 goto -2"],
  ["if w1 s<= -0x1 goto +0x3 <LBB0_2>", "if w1 s<= -1 goto +3"],
  ["goto pc+3", "goto +3"],
  ["r1 = -1 ll", "r1 = 0xffffffffffffffff ll"],
  ["r0 = *(u8 *)skb[r1 + 0]", "r0 = *(u8 *)skb[r1]"],
  ["r0 = *(u16 *)skb[r1 +4]", "r0 = *(u16 *)skb[r1 + 4]"],
  ["r0 = *(u8 *)skb[r1 - 4]", "r0 = *(u8 *)skb[r1 + -4]"],
  ["r2 = atomic64_fetch_add((u64 *)(r1 +8), r2)", "r2 = atomic_fetch_add((u64 *)(r1 + 8), r2)"],
  ["w2 = atomic_xchg((u32 *)(r1 +8), w2)", "w2 = xchg((u32 *)(r1 + 8), w2)"],
  ["r2 = xchg_64(r1 + 0x8, r2)", "r2 = xchg((u64 *)(r1 + 8), r2)"],
  ["w0 = cmpxchg32_32(r1 + 0, w0, w2)", "w0 = cmpxchg((u32 *)(r1 + 0), w0, w2)"],
  ["r0=r1//comment", "r0 = r1"],
  ["r0 = 1 # comment", "r0 = 1"],
];

test("spellings of clang, llvm-objdump and the kernel assemble to the same code", () => {
  for (const [written, meant] of SPELLINGS) {
    assert.deepEqual(disassemble(assembleText(written)), [`   0: ${meant}`], written);
  }
});

test("labels resolve in both directions, across wide loads and into functions", () => {
  const code = assembleText(`
    top: r1 = 5 ll
         if r1 == 0 goto done
         call f
         goto top
    done: exit
    f:
    g: gotol done`);
  assert.deepEqual(disassemble(code).slice(1), [
    "   2: if r1 == 0 goto +2",
    "   3: call pc+2",
    "   4: goto -5",
    "   5: exit",
    "   6: gotol -2",
  ]);
});

/** Text, and the place of its error. */
const MISTAKES: readonly (readonly [string, RegExp])[] = [
  ["r0 = r11", /^line 1, column 6: there is no register r11: "r0 = r11"$/],
  ["exit\nr0 += w1", /^line 2, column 7: expected r1: both sides have the same width/],
  ["w0 = -w1", /^line 1, column 7: both sides are the same register/],
  ["r0 = be16 r1", /^line 1, column 11: both sides are the same register/],
  ["w0 = be16 w0", /byte swaps are written with r registers/],
  ["if r1 = 2 goto +1", /^line 1, column 7: expected a comparison, found "="/],
  ["if r1 == 2 goto", /^line 1, column 16: expected a label, found the end of the line/],
  ["r0 = *(u24 *)(r1 + 0)", /^line 1, column 7: expected a type as \(u32 \*\), found "\(u24"/],
  ["r0 = *(s64 *)(r1 + 0)", /no sign-extending load of 64 bits/],
  ["w0 = *(u64 *)(r1 + 0)", /this load writes an r register/],
  ["*(s8 *)(r1 + 0) = 1", /^line 1, column 2: stores have no sign/],
  ["r0 = *(u8 *)(r1 + 40000)", /^line 1, column 17: offset \+ 40000 is not within -32768..32767/],
  ["r0 = 4294967296", /^line 1, column 6: register or immediate 4294967296 is not within/],
  ["r0 = 18446744073709551616 ll", /64-bit immediate 18446744073709551616 is not within/],
  ["r0 = 12x", /^line 1, column 6: expected register or immediate, found "12x"/],
  ["lock *(u16 *)(r1 + 0) += r2", /^line 1, column 7: atomics take u32 or u64/],
  ["r2 = xchg((u64 *)(r1 + 0), r3)", /^line 1, column 28: both sides are the same register/],
  ["r2 = atomic_fetch_sub((u64 *)(r1 + 0), r2)", /"atomic_fetch_sub" is not an operation/],
  ["r1 = cmpxchg((u64 *)(r1 + 0), r0, r2)", /cmpxchg returns into r0 or w0/],
  ["goto nowhere", /^line 1, column 6: label nowhere is not defined/],
  ["a: exit\na: exit", /^line 2, column 1: label a is defined twice/],
  ["return", /^line 1, column 1: "return" does not begin an instruction/],
  ["exit exit", /^line 1, column 6: expected the end of the line/],
  ["r0 ** 2", /^line 1, column 4: expected an operator/],
  ["constructor", /"constructor" does not begin an instruction/],
  ["r0 = toString(1)", /is not an operation/],
];

test("errors have line, column and text", () => {
  for (const [text, message] of MISTAKES) {
    assert.throws(() => assembleText(text), { code: "ASSEMBLY", message }, text);
  }
});

test("error suggests gotol when a jump exceeds its field", () => {
  const text = ["goto end", ...Array(40_000).fill("r0 = 0"), "end: exit"];
  assert.throws(
    () => assembleText(text),
    /^EbpfError: line 1, column 6: end is 40000 slots away: use/,
  );
  assert.equal(assembleText(["gotol end", ...text.slice(1)]).length, 8 * 40_002);
});

const WORDS = [
  ..."r0 r1 w1 r10 r11 w12 = += s>>= - + * ( ) [ ] , : ; # 0 -1 0x10 99999999999999999999 ll".split(
    " ",
  ),
  ..."if goto gotol pc call callx btf lock exit (u32 *(u64 *) skb xchg cmpxchg be16 map_by_fd".split(
    " ",
  ),
  ..."(s8) == s< & ! % $ label label: <x> atomic_fetch_or \u00e9 \u0000 __proto__".split(" "),
];

test("any text is assembled or refused with a TextError", () => {
  let good = 0;
  const runs = process.env.BPFHV_FULL === "1" ? 200_000 : 5000;
  const word = fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...WORDS) }, fc.string());
  const statement = fc.array(word, { maxLength: 8 }).map((words) => words.join(" "));
  const mutated = fc
    .record({ pair: fc.constantFrom(...PAIRS), at: fc.nat(40), word })
    .map(({ pair: [text], at, word }) => `${text.slice(0, at)}${word}${text.slice(at + 1)}`);
  fc.assert(
    fc.property(fc.array(fc.oneof(statement, mutated), { maxLength: 4 }), (lines) => {
      try {
        const code = assembleText(lines);
        assert.deepEqual(assembleText(disassemble(code)), code);
        good++;
      } catch (error) {
        if (!(error instanceof TextError)) throw error;
        assert.ok(error.line >= 1 && error.line <= lines.length);
        assert.ok(error.column >= 1 && error.column <= lines[error.line - 1]!.length + 1);
      }
    }),
    { numRuns: runs, seed: 20260402 },
  );
  assert.ok(good > runs / 100 && good < runs, `${good} of ${runs}`);
});

test("line of a million characters is refused as fast as a short one", () => {
  for (const text of ["(", "9", " ", "a", "-", "r0 = ", "<"]) {
    assert.throws(() => assembleText(`r0 = ${text.repeat(1_000_000 / text.length)}`), TextError);
  }
});
