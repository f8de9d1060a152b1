import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { writeElf } from "./elf-writer.ts";
import { assembleText } from "./text.ts";

const PROGRAMS = [
  { name: "txp", code: assembleText(["r0 = 0", "exit"]) },
  { name: "rxc", code: assembleText(["r0 = *(u64 *)(r1 + 8)", "r0 += 1", "exit"]) },
];

/** Sections by name, read with literal offsets of the ELF-64 format. */
function sections(elf: Uint8Array): Map<string, { type: number; content: Uint8Array }> {
  const view = new DataView(elf.buffer, elf.byteOffset);
  const table = Number(view.getBigUint64(40, true));
  const at = (i: number) => table + i * view.getUint16(58, true);
  const content = (i: number) => {
    const offset = Number(view.getBigUint64(at(i) + 24, true));
    return elf.subarray(offset, offset + Number(view.getBigUint64(at(i) + 32, true)));
  };
  const names = Buffer.from(content(view.getUint16(62, true)));
  const found = new Map<string, { type: number; content: Uint8Array }>();
  for (let i = 1; i < view.getUint16(60, true); i++) {
    const start = view.getUint32(at(i), true);
    const name = names.toString("latin1", start, names.indexOf(0, start));
    found.set(name, { type: view.getUint32(at(i) + 4, true), content: content(i) });
  }
  return found;
}

test("an object is ELF64, little endian, relocatable, for BPF, with one section per program", () => {
  const elf = writeElf(PROGRAMS);
  assert.deepEqual([...elf.subarray(0, 7)], [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  const view = new DataView(elf.buffer);
  assert.equal(view.getUint16(16, true), 1);
  assert.equal(view.getUint16(18, true), 247);
  const found = sections(elf);
  assert.deepEqual([...found.keys()], ["txp", "rxc", ".symtab", ".strtab", ".shstrtab"]);
  for (const { name, code } of PROGRAMS) {
    assert.equal(found.get(name)?.type, 1);
    assert.deepEqual(Buffer.from(found.get(name)!.content), Buffer.from(code));
  }
});

const readelf = spawnSync("readelf", ["--version"]).status === 0;
test("readelf finds nothing to complain about", {
  skip: readelf ? false : "no readelf here",
}, () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-elf-"));
  try {
    const file = join(folder, "set.o");
    writeFileSync(file, writeElf(PROGRAMS));
    const { stdout, stderr, status } = spawnSync("readelf", ["-hSs", "-W", file], {
      encoding: "utf8",
    });
    assert.equal(status, 0);
    assert.equal(stderr, "");
    assert.match(stdout, /Linux BPF/);
    assert.match(stdout, /FUNC\s+GLOBAL\s+DEFAULT\s+2 rxc/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("names used twice, empty names and broken code are refused", () => {
  const code = PROGRAMS[0]!.code;
  for (const programs of [
    [
      { name: "a", code },
      { name: "a", code },
    ],
    [{ name: "", code }],
    [{ name: "a", code: code.subarray(0, 12) }],
    [{ name: "a", code: new Uint8Array() }],
  ]) {
    assert.throws(() => writeElf(programs), { code: "ELF" });
  }
});
