import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { readElf } from "./elf-reader.ts";
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

test("object is relocatable little-endian ELF64 for BPF with one section per program", () => {
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

test("programs satisfy the original's loader: PROGBITS, whole instructions, no relocations", () => {
  const names = ["rxp", "rxc", "rxi", "rxr", "txp", "txc", "txi", "txr"];
  const found = sections(writeElf(names.map((name) => ({ name, code: PROGRAMS[0]!.code }))));
  for (const name of names) {
    const section = found.get(name);
    assert.equal(section?.type, 1, name);
    assert.ok(section.content.length > 0 && section.content.length % 8 === 0);
  }
  const SHT_RELA = 4;
  const SHT_REL = 9;
  for (const { type } of found.values()) assert.ok(type !== SHT_RELA && type !== SHT_REL);
});

/** A program of two instructions, each with its line. */
const WITH_LINES = {
  name: "txp",
  code: PROGRAMS[0]!.code,
  lines: new Map([
    [0, { file: "guest.ts", line: 7, column: 3, text: "return 0;" }],
    [1, { file: "guest.ts", line: 8, column: 1, text: "}" }],
  ]),
};

/** Runs `use` with a file that holds the bytes. */
function withFile(bytes: Uint8Array, use: (file: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-elf-"));
  try {
    const file = join(folder, "set.o");
    writeFileSync(file, bytes);
    use(file);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const objdump = ["llvm-objdump-19", "llvm-objdump"].find(
  (name) => spawnSync(name, ["--version"]).status === 0,
);
test("llvm-objdump disassembles the object", {
  skip: objdump ? false : "no llvm-objdump here",
}, () => {
  withFile(writeElf([WITH_LINES, PROGRAMS[1]!]), (file) => {
    const { stdout, stderr, status } = spawnSync(objdump!, ["-d", file], { encoding: "utf8" });
    assert.deepEqual([status, stderr], [0, ""]);
    assert.match(stdout, /<txp>:\n.*r0 = (0x)?0\n.*exit\n/);
    assert.match(stdout, /<rxc>:\n.*r0 = \*\(u64 \*\)\(r1 \+ (0x)?8\)\n.*r0 \+= (0x)?1\n.*exit\n/);
  });
});

test("llvm-objdump shows the object's source lines", {
  skip: objdump === "llvm-objdump-19" ? false : "no llvm-objdump-19, which reads lines from BTF",
}, () => {
  withFile(writeElf([WITH_LINES]), (file) => {
    const { stdout } = spawnSync(objdump!, ["-d", "-S", "-l", file], { encoding: "utf8" });
    assert.match(stdout, /; guest.ts:7\n; return 0;\n.*r0 = 0x0\n; guest.ts:8\n; }\n.*exit/);
  });
});

const bpftool = ["bpftool", "/usr/sbin/bpftool"].find(
  (name) => spawnSync(name, ["version"]).status === 0,
);
test("bpftool reads the object's types, and libbpf links it", {
  skip: bpftool ? false : "no bpftool here",
}, () => {
  withFile(writeElf([WITH_LINES, PROGRAMS[1]!]), (file) => {
    const run = (...args: string[]) => spawnSync(bpftool!, args, { encoding: "utf8" });
    const types = run("btf", "dump", "file", file);
    assert.deepEqual([types.status, types.stderr], [0, ""]);
    assert.match(types.stdout, /FUNC 'txp' type_id=1 linkage=global\n.*FUNC 'rxc' type_id=1/);
    const linked = run("gen", "object", `${file}.linked.o`, file);
    assert.deepEqual([linked.status, linked.stderr], [0, ""]);
    const [txp, rxc] = readElf(readFileSync(`${file}.linked.o`));
    assert.deepEqual([txp?.code, rxc?.code], [WITH_LINES.code, PROGRAMS[1]!.code]);
    assert.deepEqual(txp?.lines, WITH_LINES.lines);
  });
});

const readelf = spawnSync("readelf", ["--version"]).status === 0;
test("readelf accepts the object without warnings", {
  skip: readelf ? false : "no readelf here",
}, () => {
  withFile(writeElf([WITH_LINES, PROGRAMS[1]!]), (file) => {
    const { stdout, stderr, status } = spawnSync("readelf", ["-hSs", "-W", file], {
      encoding: "utf8",
    });
    assert.equal(status, 0);
    assert.equal(stderr, "");
    assert.match(stdout, /Linux BPF/);
    assert.match(stdout, /FUNC\s+GLOBAL\s+DEFAULT\s+2 rxc/);
  });
});

test("writeElf refuses duplicate names, empty names and invalid code", () => {
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
