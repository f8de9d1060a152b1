/** The decoder against the table of encodings: unused fields must be zero. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeProgram, encodeProgram, type Fields, makeInstruction } from "./instruction.ts";
import { ENCODINGS, type Encoding, encodingsOf, type FieldName } from "./opcode.ts";

const FIELDS: readonly FieldName[] = ["dst", "src", "offset", "imm", "high"];

/** Returns one slot (two for wide loads) with the given fields, valid or not. */
function bytesOf(encoding: Encoding, fields: Fields): Uint8Array {
  const wide = encoding.operation.kind === "wide";
  const view = new DataView(new ArrayBuffer(wide ? 16 : 8));
  view.setUint8(0, encoding.opcode);
  view.setUint8(1, fields.dst | (fields.src << 4));
  view.setInt16(2, fields.offset, true);
  view.setInt32(4, fields.imm, true);
  if (wide) view.setInt32(12, fields.high, true);
  return new Uint8Array(view.buffer);
}

const fieldsOf = (encoding: Encoding): Fields => makeInstruction(encoding.operation, {});
const nameOf = (encoding: Encoding): string => Object.values(encoding.operation).join(" ");

test("encoding decodes to itself", () => {
  for (const encoding of ENCODINGS) {
    const [decoded] = decodeProgram(bytesOf(encoding, fieldsOf(encoding)));
    assert.equal(decoded?.encoding, encoding, nameOf(encoding));
  }
});

test("unused field is refused when it is not zero", () => {
  let refused = 0;
  for (const encoding of ENCODINGS) {
    for (const field of FIELDS) {
      if (encoding.uses.includes(field) || encoding.selector?.field === field) continue;
      if (field === "high" && encoding.operation.kind !== "wide") continue;
      for (const value of field === "dst" || field === "src" ? [1, 10, 15] : [1, -1, 8]) {
        const bytes = bytesOf(encoding, { ...fieldsOf(encoding), [field]: value });
        const message = new RegExp(`^instruction 0: ${field} is ${value}, but`);
        assert.throws(() => decodeProgram(bytes), { code: "ENCODING", message }, nameOf(encoding));
        refused++;
      }
    }
  }
  assert.ok(refused > 500, `${refused}`);
});

test("selector is refused with its field when it selects no operation", () => {
  for (const encoding of ENCODINGS) {
    const { selector } = encoding;
    if (selector === undefined) continue;
    const taken = encodingsOf(encoding.opcode).map((e) => e.selector?.value);
    const free = [2, 3, 7, 9, 12, 15].filter((value) => !taken.includes(value));
    for (const value of free) {
      const bytes = bytesOf(encoding, { ...fieldsOf(encoding), [selector.field]: value });
      const message = new RegExp(`${selector.field} ${value} selects no operation`);
      assert.throws(() => decodeProgram(bytes), { code: "ENCODING", message }, nameOf(encoding));
    }
  }
});

test("registers above r10 are refused in every encoding", () => {
  for (const encoding of ENCODINGS) {
    for (const field of ["dst", "src"] as const) {
      if (!encoding.uses.includes(field)) continue;
      for (const value of [11, 15]) {
        const bytes = bytesOf(encoding, { ...fieldsOf(encoding), [field]: value });
        assert.throws(() => decodeProgram(bytes), /there is no register r1[15]/, nameOf(encoding));
      }
    }
  }
});

/** Opcodes of RFC 9669, appendix A, by class. Copied from the RFC's tables, independent of ours. */
const RFC_OPCODES: readonly number[] = [
  // LD: 64-bit immediate, legacy packet access (absolute and indirect: W, H, B)
  ...[0x18, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50],
  // LDX: plain and sign-extending
  ...[0x61, 0x69, 0x71, 0x79, 0x81, 0x89, 0x91],
  // ST, STX, atomics
  ...[0x62, 0x6a, 0x72, 0x7a, 0x63, 0x6b, 0x73, 0x7b, 0xc3, 0xdb],
  // ALU and ALU64, immediate and register
  ...[0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x84, 0x94, 0xa4, 0xb4, 0xc4, 0xd4],
  ...[0x0c, 0x1c, 0x2c, 0x3c, 0x4c, 0x5c, 0x6c, 0x7c, 0x9c, 0xac, 0xbc, 0xcc, 0xdc],
  ...[0x07, 0x17, 0x27, 0x37, 0x47, 0x57, 0x67, 0x77, 0x87, 0x97, 0xa7, 0xb7, 0xc7, 0xd7],
  ...[0x0f, 0x1f, 0x2f, 0x3f, 0x4f, 0x5f, 0x6f, 0x7f, 0x9f, 0xaf, 0xbf, 0xcf],
  // JMP and JMP32
  ...[0x05, 0x15, 0x25, 0x35, 0x45, 0x55, 0x65, 0x75, 0x85, 0x95, 0xa5, 0xb5, 0xc5, 0xd5],
  ...[0x1d, 0x2d, 0x3d, 0x4d, 0x5d, 0x6d, 0x7d, 0x8d, 0xad, 0xbd, 0xcd, 0xdd],
  ...[0x06, 0x16, 0x26, 0x36, 0x46, 0x56, 0x66, 0x76, 0xa6, 0xb6, 0xc6, 0xd6],
  ...[0x1e, 0x2e, 0x3e, 0x4e, 0x5e, 0x6e, 0x7e, 0xae, 0xbe, 0xce, 0xde],
];

test("decoder accepts exactly the opcodes of RFC 9669", () => {
  const ours = [...new Set(ENCODINGS.map((e) => e.opcode))].sort((a, b) => a - b);
  assert.deepEqual(
    ours,
    [...RFC_OPCODES].sort((a, b) => a - b),
  );
  for (let opcode = 0; opcode < 256; opcode++) {
    if (RFC_OPCODES.includes(opcode)) continue;
    const bytes = Uint8Array.of(opcode, 0, 0, 0, 0, 0, 0, 0);
    assert.throws(() => decodeProgram(bytes), /unknown opcode/, `${opcode}`);
  }
});

test("program is refused when it ends within a slot or a wide load", () => {
  const code = encodeProgram([makeInstruction({ kind: "wide", value: "value" }, { imm: 1 })]);
  assert.throws(() => decodeProgram(code.subarray(0, 8)), /lacks its second half/);
  assert.throws(() => decodeProgram(code.subarray(0, 12)), /not a multiple of 8/);
});
