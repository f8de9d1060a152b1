/**
 * The guest module's list of instructions, compiled in user space, agrees with src/ebpf on every
 * opcode and on the fields that give an instruction its meaning.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { decodeProgram } from "../../src/ebpf/index.ts";
import { packageRoot } from "../../src/vm/guest-parts.ts";
import { withoutCc } from "../support/cc.ts";

/** What the checks need of the module's header. */
const SHIM = `
#include <linux/bpf.h>
#include <stdbool.h>
#include <stdint.h>
typedef uint8_t u8; typedef uint32_t u32;
#define EPERM 1
#define BPFHV_HAS_KERN_SYS_BPF 1
struct bpfhv_code { struct bpf_insn *insns; u32 len; };
`;

/** Reads programs of two slots, and writes for each "." if it is allowed, "0" or "1" if not. */
const MAIN = `
#include "pure.c"
#include <stdio.h>
int main(void)
{
	struct bpf_insn insns[2];
	struct bpfhv_code code = { insns, 2 };
	u32 where;

	while (fread(insns, sizeof(insns), 1, stdin))
		putchar(bpfhv_check_pure(&code, &where) ? '0' + where : '.');
	return 0;
}
`;

const EXIT = 0x95;
const WIDE = 0x18;
/** Values of the field that select operations, or that newer kernels give a meaning. */
const SOURCES = [0, 1, 10];
const OFFSETS = [0, 1, 8, 16, 32, -1];
/** Atomics with and without FETCH (0x01), XCHG, CMPXCHG; load-acquire, store-release; widths. */
const IMMEDIATES = [
  ...[0, 1, 0x40, 0x41, 0x50, 0x51, 0xa0, 0xa1, 0xe0, 0xe1, 0xf0, 0xf1],
  ...[0x100, 0x110, 2, 16, 64],
];
/** Combinations per opcode. */
const EACH = SOURCES.length * OFFSETS.length * IMMEDIATES.length;

const folder = mkdtempSync(join(tmpdir(), "bpfhv-pure-"));
const checker = join(folder, "checker");

function slot(code: number, registers = 0, offset = 0, imm = 0): Buffer {
  const bytes = Buffer.alloc(8);
  bytes[0] = code;
  bytes[1] = registers;
  bytes.writeInt16LE(offset, 2);
  bytes.writeInt32LE(imm, 4);
  return bytes;
}

/** Returns what the module says of each program: "." or the refused slot. */
const verdicts = (programs: readonly Buffer[]): string =>
  execFileSync(checker, { input: Buffer.concat(programs), encoding: "utf8" });

/** Returns the module's verdict on one instruction, followed by an exit. */
const verdictOn = (...fields: Parameters<typeof slot>): string =>
  verdicts([Buffer.concat([slot(...fields), slot(EXIT)])]);

/** RFC 9669 without calls, packet access and references: what our decoder reads, less those. */
function isPure(program: Buffer): boolean {
  try {
    const { operation } = decodeProgram(program)[0].encoding;
    if (operation.kind === "wide") return operation.value === "value";
    return operation.kind !== "call" && operation.kind !== "packet";
  } catch {
    return false;
  }
}

describe("instructions of programs", { skip: withoutCc }, () => {
  before(() => {
    copyFileSync(join(packageRoot(), "driver/linux/pure.c"), join(folder, "pure.c"));
    writeFileSync(join(folder, "bpfhv.h"), SHIM);
    writeFileSync(join(folder, "main.c"), MAIN);
    execFileSync("cc", ["-Wall", "-Werror", "-O1", "-o", checker, "main.c"], { cwd: folder });
  });

  after(() => rmSync(folder, { recursive: true, force: true }));

  test("module allows exactly the instructions of RFC 9669 that stay inside the program", () => {
    const programs: Buffer[] = [];
    for (let code = 0; code < 256; code++) {
      const second = code === WIDE ? slot(0) : slot(EXIT);
      for (const source of SOURCES) {
        for (const offset of OFFSETS) {
          for (const imm of IMMEDIATES) {
            programs.push(Buffer.concat([slot(code, source << 4, offset, imm), second]));
          }
        }
      }
    }
    const said = verdicts(programs);
    assert.equal(said.length, 256 * EACH);
    let allowed = 0;
    for (const [index, program] of programs.entries()) {
      const expected = isPure(program) ? "." : "0";
      if (expected === ".") allowed++;
      assert.equal(said[index], expected, program.toString("hex"));
    }
    assert.ok(allowed > 1000, `${allowed} allowed`);
  });

  test("module refuses instructions of newer kernels that run long or reach elsewhere", () => {
    const newer: Record<string, Parameters<typeof slot>> = {
      may_goto: [0xe5, 0, 1],
      "may_goto of 32 bits": [0xe6, 0, 1],
      "call of a helper": [0x85, 0, 0, 1],
      "call through a register": [0x8d, 2],
      "call of a kernel function": [0x85, 0x20, 0, 1],
      "address space cast": [0xbf, 0x10, 1, 1],
      "per-CPU address": [0xbf, 0x10, -1],
      "load-acquire": [0xdb, 0x10, 0, 0x100],
      "store-release": [0xdb, 0x10, 0, 0x110],
      "probed load": [0x39, 0x10],
    };
    for (const [name, fields] of Object.entries(newer))
      assert.equal(verdictOn(...fields), "0", name);
  });

  test("module refuses a wide load when its second slot is missing or used", () => {
    const wide = slot(WIDE, 2);
    const programs = [
      Buffer.concat([slot(EXIT), wide]),
      Buffer.concat([wide, slot(EXIT)]),
      Buffer.concat([wide, slot(0, 1)]),
      Buffer.concat([wide, slot(0, 0, 1)]),
      Buffer.concat([wide, slot(0, 0, 0, 7)]),
    ];
    assert.equal(verdicts(programs), "1000.");
  });
});
