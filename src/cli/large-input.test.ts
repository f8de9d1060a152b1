// Files within the size limit that would take minutes or gigabytes are refused, in one line, within
// both bounds.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { ELF, ELF_IDENT } from "../ebpf/elf.ts";

const MAIN = fileURLToPath(new URL("main.js", import.meta.url));
/** The largest file that is read, less a little. */
const SIZE = 16 * 1024 * 1024 - 4096;
/** Of the child, with its start: MiB that are resident at most, and seconds of processor time. */
const MIB = 320;
const SECONDS = 5;
/** Tells what the child used: KiB and microseconds. */
const REPORT = `data:text/javascript,import{writeSync}from"node:fs";
process.on("exit",()=>writeSync(3,JSON.stringify(process.resourceUsage())))`;

const folder = mkdtempSync(join(tmpdir(), "bpfhv-large-"));
after(() => rmSync(folder, { recursive: true }));

const repeated = (text: string): Buffer => Buffer.alloc(SIZE, text);

/** An object with one section of code and one table of symbols, whose names lie in each other. */
function overlappingNames(): Buffer {
  const names = 4 << 20;
  const symbols = Math.floor((SIZE - names - 4096) / ELF.SYMBOL_SIZE);
  const bytes = Buffer.alloc(ELF.HEADER_SIZE + 4 * ELF.SECTION_HEADER_SIZE + 16);
  Buffer.from(ELF_IDENT).copy(bytes);
  bytes.writeUInt16LE(ELF.ET_REL, 16);
  bytes.writeUInt16LE(ELF.EM_BPF, 18);
  bytes.writeBigUInt64LE(BigInt(ELF.HEADER_SIZE), 40);
  bytes.writeUInt16LE(ELF.SECTION_HEADER_SIZE, 58);
  bytes.writeUInt16LE(4, 60);
  bytes.writeUInt16LE(1, 62);
  const code = Buffer.from("b700000000000000" + "9500000000000000", "hex");
  code.copy(bytes, bytes.length - 16);
  const strings = Buffer.alloc(names, "s");
  const table = Buffer.alloc(symbols * ELF.SYMBOL_SIZE);
  for (let i = 0; i < symbols; i++)
    table.writeUInt32LE((i * 7) % (names - 600), i * ELF.SYMBOL_SIZE);
  const header = (n: number, type: number, flags: number, at: number, size: number, link = 0) => {
    const start = ELF.HEADER_SIZE + n * ELF.SECTION_HEADER_SIZE;
    bytes.writeUInt32LE(type, start + 4);
    bytes.writeBigUInt64LE(BigInt(flags), start + 8);
    bytes.writeBigUInt64LE(BigInt(at), start + 24);
    bytes.writeBigUInt64LE(BigInt(size), start + 32);
    bytes.writeUInt32LE(link, start + 40);
  };
  header(1, ELF.SHT_STRTAB, 0, bytes.length, names);
  header(2, ELF.SHT_PROGBITS, ELF.SHF_EXECINSTR, bytes.length - 16, 16);
  header(3, ELF.SHT_SYMTAB, 0, bytes.length + names, table.length, 1);
  return Buffer.concat([bytes, strings, table]);
}

const CASES: readonly (readonly [what: string, bytes: () => Buffer, error: RegExp])[] = [
  ["two million instructions as text", () => repeated("r0 = 0\n"), /line 65537.*at most 65536/],
  ["sixteen million empty lines", () => repeated("\n"), /at most 262144 lines/],
  ["eight million comments", () => repeated("#\n"), /at most 262144 lines/],
  ["millions of labels", () => labels(), /at most 262144 lines/],
  ["one line", () => repeated("r"), /lines have at most 4096 characters/],
  ["one line of comments", () => repeated(";"), /lines have at most 4096 characters/],
  ["two million instructions", () => code(), /at most 16384/],
  ["a million instructions in hexadecimal", () => repeated("b700000000000000"), /at most 16384/],
  ["an object whose names lie in each other", overlappingNames, /strings of a table overlap/],
];

function labels(): Buffer {
  const lines = Array.from({ length: 1_500_000 }, (_, n) => `l${n}:`);
  return Buffer.from(lines.join("\n"));
}

function code(): Buffer {
  return Buffer.alloc(SIZE, Buffer.from("b700000000000000", "hex"));
}

for (const [what, make, error] of CASES) {
  test(`disasm refuses ${what} within bounds of time and memory`, () => {
    const path = join(folder, "input");
    writeFileSync(path, make());
    const { stderr, status, output } = spawnSync(
      process.execPath,
      ["--import", REPORT, MAIN, "disasm", path],
      { encoding: "utf8", timeout: 60_000, stdio: ["ignore", "pipe", "pipe", "pipe"] },
    );
    assert.match(stderr, error);
    assert.equal(stderr.trimEnd().split("\n").length, 1, stderr.slice(0, 500));
    assert.equal(status, 1);
    const { maxRSS, userCPUTime, systemCPUTime } = JSON.parse(output[3]!);
    assert.ok(maxRSS < MIB * 1024, `${maxRSS} KiB`);
    const seconds = (userCPUTime + systemCPUTime) / 1e6;
    assert.ok(seconds < SECONDS, `${seconds} s`);
  });
}
