import assert from "node:assert/strict";
import test from "node:test";
import { struct, u8, u16, u32, u64 } from "./layout.ts";

test("struct has its fields' offsets and widths", () => {
  const s = struct("s", 16, { a: u32(0), b: u64(8) });
  assert.equal(s.b.offset, 8);
  assert.equal(s.b.width, 8);
  assert.equal(s.size, 16);
});

test("struct refuses a field when it is misaligned", () => {
  assert.throws(() => struct("s", 16, { a: u32(2) }), /s\.a: offset 2 is not aligned/);
});

test("struct refuses fields when they overlap in any order", () => {
  assert.throws(() => struct("s", 16, { b: u8(1), a: u16(0) }), /s\.b overlaps/);
});

test("struct refuses a field when it ends past the size", () => {
  assert.throws(() => struct("s", 4, { a: u32(4) }), /fields end at 8, past its size 4/);
});
