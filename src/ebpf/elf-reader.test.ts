import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { ELF } from "./elf.ts";
import { readElf } from "./elf-reader.ts";
import { writeElf } from "./elf-writer.ts";
import { EbpfError } from "./errors.ts";
import { Interpreter } from "./interpreter.ts";
import { assembleText, disassemble, disassembleProgram } from "./text.ts";

const FOLDER = new URL("../../../src/ebpf/testdata/", import.meta.url);
const object = (name: string): Uint8Array => new Uint8Array(readFileSync(new URL(name, FOLDER)));
const OBJECTS = readdirSync(FOLDER).filter((name) => name.endsWith(".o"));
const COMPILERS = ["clang-14", "clang-19"];

/** Runs a program on a context of 64-bit words. */
function run(code: Uint8Array, words: readonly bigint[]): bigint {
  const bytes = new Uint8Array(BigUint64Array.from(words).buffer);
  const machine = new Interpreter(code, { regions: [{ name: "context", base: 0x10000, bytes }] });
  return BigInt.asUintN(64, machine.run(0x10000n));
}

const wrap = (value: bigint): bigint => BigInt.asUintN(64, value);
const mix = (a: bigint, b: bigint): bigint => wrap(a * 31n + (b ^ (a >> 7n)));

for (const compiler of COMPILERS) {
  test(`${compiler}: functions of .text are appended to each program that calls them, and run`, () => {
    const [txp, rxc, ...rest] = readElf(object(`calls.${compiler}.o`));
    assert.equal(rest.length, 0);
    assert.deepEqual([txp?.name, txp?.section, txp?.entry], ["txp", "txp", "publish"]);
    assert.deepEqual([rxc?.name, rxc?.section, rxc?.entry], ["rxc", "rxc", "collect"]);
    const [a, b] = [0x0123_4567_89ab_cdefn, 0xfedc_ba98_7654_3210n];
    assert.equal(run(txp!.code, [a, b]), wrap(mix(a, b) + mix(b, a)));
    assert.equal(run(rxc!.code, [a, b]), mix(b, 3n));
  });

  test(`${compiler}: source lines are kept, also in called functions`, () => {
    const [txp] = readElf(object(`calls.${compiler}.o`));
    const shown = disassembleProgram(txp!, { source: true });
    assert.equal(shown[0], "; ./calls.c:19: return both_ways(context[0], context[1]);");
    assert.ok(shown.includes("; ./calls.c:9: return a * 31 + (b ^ (a >> 7));"));
    assert.deepEqual(assembleText(shown), txp!.code);
  });

  test(`${compiler}: functions of one section are programs with their names`, () => {
    const [sum, swap, ...rest] = readElf(object(`loops.${compiler}.o`), "programs");
    assert.equal(rest.length, 0);
    assert.deepEqual([sum?.name, swap?.name], ["sum", "swap"]);
    assert.equal(run(sum!.code, [0x3_0000_0001n, 0x2_0000_0005n, ...Array(6).fill(0n)]), 9n);
    assert.equal(run(swap!.code, [0x11223344n]), 0x44332211n);
  });

  test(`${compiler}: helper call by constant address becomes a call by number`, () => {
    const [rxp] = readElf(object(`helpers.${compiler}.o`));
    const helpers = new Map([[0x4b8f0009, (r1: bigint) => r1 * 2n]]);
    assert.equal(new Interpreter(rxp!.code, { helpers }).run(20n), 41n);
  });

  test(`${compiler}: relocation that needs a loader is refused by name`, () => {
    const bytes = object(`globals.${compiler}.o`);
    assert.throws(() => readElf(bytes, "global"), {
      code: "ELF",
      message: /^global: relocation R_BPF_64_64 against ".data" at instruction 0 of reads_global/,
    });
    assert.throws(() => readElf(bytes, "elsewhere"), {
      code: "ELF",
      message: /^elsewhere: relocation R_BPF_64_32 against "unknown" at instruction 1 of calls_el/,
    });
  });
}

test("section is one program when there are no symbols", () => {
  const [program, ...rest] = readElf(object("loops.stripped.o"));
  assert.equal(rest.length, 0);
  assert.deepEqual([program?.name, program?.entry], ["programs", "programs"]);
});

test("written object is read back with names, code and lines", () => {
  for (const name of OBJECTS.filter((n) => !n.startsWith("globals"))) {
    const programs = readElf(object(name));
    const again = readElf(writeElf(programs));
    assert.deepEqual(
      again.map(({ name, code, lines }) => ({ name, code, lines })),
      programs.map(({ name, code, lines }) => ({ name, code, lines })),
    );
  }
});

test("single function of a section is read by its name", () => {
  const bytes = object("loops.clang-19.o");
  assert.deepEqual(
    readElf(bytes, "swap").map((p) => [p.name, p.section]),
    [["swap", "programs"]],
  );
});

test("missing section is refused with the list of existing ones", () => {
  assert.throws(() => readElf(object("calls.clang-19.o"), "rxp"), {
    code: "ELF",
    message: 'no section with code and no function is called "rxp": there is .text, txp, rxc',
  });
});

/* Corrupt files */

const CODE = assembleText(["r0 = 0", "exit"]);
const sample = (): Uint8Array => writeElf([{ name: "txp", code: CODE }]);

/** Returns a sample with some bytes overwritten, at positions of the ELF-64 format. */
function damaged(change: (view: DataView, sections: number) => void): Uint8Array {
  const bytes = sample();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  change(view, Number(view.getBigUint64(40, true)));
  return bytes;
}

const HOSTILE: readonly (readonly [string, Uint8Array, RegExp])[] = [
  ["no bytes", new Uint8Array(), /not an ELF file/],
  ["a truncated header", sample().subarray(0, 63), /not an ELF file/],
  ["32 bits", damaged((v) => v.setUint8(4, 1)), /not ELF64, little endian/],
  ["big endian", damaged((v) => v.setUint8(5, 2)), /not ELF64, little endian/],
  ["another machine", damaged((v) => v.setUint16(18, 62, true)), /machine 62, not BPF/],
  ["an executable", damaged((v) => v.setUint16(16, 2, true)), /not a relocatable object/],
  ["no sections", damaged((v) => v.setUint16(60, 0, true)), /no sections/],
  ["more sections than fit", damaged((v) => v.setUint16(60, 0xffff, true)), /outside the file/],
  ["a table at 2^63", damaged((v) => v.setBigUint64(40, 1n << 63n, true)), /outside the file/],
  ["names in no section", damaged((v) => v.setUint16(62, 99, true)), /no table of section names/],
  [
    "a section of 2^40 bytes",
    damaged((v, at) => v.setBigUint64(at + 64 + 32, 1n << 40n, true)),
    /section 1 of size 1099511627776 is outside the file/,
  ],
  [
    "a section that ends one byte past the file",
    damaged((v, at) => v.setBigUint64(at + 64 + 32, BigInt(v.byteLength - 63), true)),
    /section 1 reaches outside the file/,
  ],
  [
    "two sections with the same bytes",
    damaged((v, at) => {
      v.setBigUint64(at + 64 + 24, 0n, true);
      v.setBigUint64(at + 64 + 32, BigInt(v.byteLength), true);
    }),
    /sections overlap/,
  ],
  [
    "a truncated instruction",
    damaged((v, at) => v.setBigUint64(at + 64 + 32, 12n, true)),
    /12 bytes are not whole instructions/,
  ],
  [
    "symbols whose names are nowhere",
    damaged((v, at) => v.setUint32(at + 2 * 64 + 40, 77, true)),
    /no table of symbol names/,
  ],
];

test("object is refused with the reason when it is corrupt", () => {
  for (const [name, bytes, message] of HOSTILE) {
    assert.throws(() => readElf(bytes), { code: "ELF", message }, name);
  }
});

test("overlapping functions are counted, so that a small file cannot cause much work", () => {
  // 2,000 functions, each from its own slot to the end of 4,000 slots.
  const code = new Uint8Array(4000 * 8);
  for (let i = 0; i < 4000; i++) code[i * 8] = 0x95;
  const bytes = writeElf([{ name: "all", code }]);
  assert.equal(readElf(bytes).length, 1);
  const many = withSymbols(bytes, 2000, 4000);
  assert.throws(() => readElf(many), { code: "ELF", message: /more than 163840 slots/ });
});

/** Returns the object with `count` more functions in its first section, from slot i to `slots`. */
function withSymbols(bytes: Uint8Array, count: number, slots: number): Uint8Array {
  const symbols = new DataView(new ArrayBuffer((count + 1) * ELF.SYMBOL_SIZE));
  for (let i = 0; i < count; i++) {
    const at = (i + 1) * ELF.SYMBOL_SIZE;
    symbols.setUint8(at + 4, (ELF.STB_GLOBAL << 4) | ELF.STT_FUNC);
    symbols.setUint16(at + 6, 1, true);
    symbols.setBigUint64(at + 8, BigInt(8 * i), true);
    symbols.setBigUint64(at + 16, BigInt(8 * (slots - i)), true);
  }
  const made = Buffer.concat([bytes, new Uint8Array(symbols.buffer)]);
  const view = new DataView(made.buffer, made.byteOffset, made.byteLength);
  const table = Number(view.getBigUint64(40, true)) + 2 * ELF.SECTION_HEADER_SIZE;
  view.setBigUint64(table + 24, BigInt(bytes.length), true);
  view.setBigUint64(table + 32, BigInt(symbols.byteLength), true);
  return made;
}

/** Some overwritten bytes of an object, and optionally a truncation. */
const mutation = fc.record({
  name: fc.constantFrom(...OBJECTS),
  writes: fc.array(
    fc.record({
      at: fc.nat(4095),
      value: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)),
    }),
    { minLength: 1, maxLength: 12 },
  ),
  length: fc.option(fc.nat(4095), { freq: 8 }),
});

test("mutated object is read or refused with an EbpfError", () => {
  let refused = 0;
  const runs = process.env.BPFHV_FULL === "1" ? 200_000 : 6000;
  fc.assert(
    fc.property(mutation, ({ name, writes, length }) => {
      const bytes = object(name);
      // The section headers are near the end: half of the writes go there.
      for (const { at, value } of writes) {
        bytes[at % 2 === 0 ? at % bytes.length : bytes.length - 1 - (at % 1200)] = value;
      }
      try {
        for (const { code } of readElf(bytes.subarray(0, length ?? bytes.length)))
          disassemble(code);
      } catch (error) {
        if (!(error instanceof EbpfError)) throw error;
        refused++;
      }
    }),
    { numRuns: runs, seed: 20260401 },
  );
  // Both outcomes occur.
  assert.ok(refused > runs / 10 && refused < runs, `${refused} of ${runs}`);
});
