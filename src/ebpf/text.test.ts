import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { encodeProgram, makeInstruction } from "./instruction.ts";
import { ENCODINGS } from "./opcode.ts";
import { assembleText, disassemble } from "./text.ts";

const bytes = (hex: string): Uint8Array => Buffer.from(hex.replaceAll(" ", ""), "hex");

/** Text, and its bytes as clang's assembler gives them. */
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
  test(`${text}, both ways`, () => {
    assert.deepEqual(Buffer.from(assembleText(text)), bytes(hex));
    assert.deepEqual(disassemble(bytes(hex)), [`   0: ${text}`]);
  });
}

test("what is disassembled assembles to the same bytes, for every encoding", () => {
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

test("comments, positions and empty lines are passed over", () => {
  const code = assembleText("  0: r0 = 1 ; one\n\n   1: exit\n");
  assert.deepEqual(Buffer.from(code), bytes("b7 00 0000 01000000 95 00 0000 00000000"));
});

for (const text of [
  "r0 = r11",
  "r0 += w1",
  "w0 = -w1",
  "if r1 = 2 goto +1",
  "r0 = *(u24 *)(r1 + 0)",
]) {
  test(`"${text}" is refused with its text`, () => {
    assert.throws(() => assembleText(text), { code: "ASSEMBLY" });
    assert.throws(() => assembleText(text), new RegExp(text.replace(/[*+()[\].]/g, "\\$&")));
  });
}
