import assert from "node:assert/strict";
import test from "node:test";
import { struct, u8, u16, u32, u64 } from "./layout.ts";

test("a struct gives its fields' offsets and widths", () => {
  const s = struct("s", 16, { a: u32(0), b: u64(8) });
  assert.equal(s.b.offset, 8);
  assert.equal(s.b.width, 8);
  assert.equal(s.size, 16);
});

test("a misaligned field is refused", () => {
  assert.throws(() => struct("s", 16, { a: u32(2) }), /s\.a: offset 2 is not aligned/);
});

test("overlapping fields are refused, whatever their order", () => {
  assert.throws(() => struct("s", 16, { b: u8(1), a: u16(0) }), /s\.b overlaps/);
});

test("a field past the end is refused", () => {
  assert.throws(() => struct("s", 4, { a: u32(4) }), /fields end at 8, past its size 4/);
});
