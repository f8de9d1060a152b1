/** The register table: complete, documented, and the driver's header has the same offsets. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { BAR_REGISTERS, REG } from "../../src/abi/index.ts";
import { readBar, writeBar } from "../../src/nic/bars.ts";
import { REGISTER_ROWS, type Row } from "../../src/nic/register-table.ts";
import { Bench } from "../support/guest.ts";

const PAGE = fileURLToPath(new URL("../../../docs/abi-extension.md", import.meta.url));

test("register table has every register once, by ascending offset", () => {
  const names = REGISTER_ROWS.flatMap(({ registers }) => registers.map(({ name }) => name));
  const { EXT_END, ...offsets } = REG;
  assert.deepEqual(names, Object.keys(offsets));
  assert.deepEqual(
    names.map((name) => REG[name]),
    names.map((_, i) => 4 * i),
  );
  assert.equal(EXT_END, 4 * names.length);
});

test("a row's access agrees with what it reads and writes", () => {
  for (const { access, registers } of REGISTER_ROWS) {
    for (const { name, read, write } of registers) {
      assert.equal(read !== null, ["RO", "RW", "W1C"].includes(access), `${name}: read`);
      assert.equal(write !== null, ["RW", "WO", "W1C"].includes(access), `${name}: write`);
    }
  }
});

/** A line of the table in docs/abi-extension.md. */
function line({ registers, access, meaning }: Row): string {
  const offsets = registers.map(({ name }) => REG[name]).join(", ");
  const names = registers.map(({ name }) => name).join(", ");
  return `| ${offsets} | ${names} | ${access} | ${meaning} |`;
}

test("docs/abi-extension.md has the register table line by line", () => {
  const lines = readFileSync(PAGE, "utf8").split("\n");
  const documented = lines.filter((text) => /^\| \d+(, \d+)? \| [A-Z]/.test(text));
  const expected = REGISTER_ROWS.map(line);
  assert.deepEqual(documented, expected, `the table is:\n${expected.join("\n")}`);
});

test("registers answer as their access says when every word is read and written", () => {
  const bench = new Bench();
  const { nic } = bench;
  for (const { access, registers } of REGISTER_ROWS) {
    const pair = registers.length === 2;
    for (const { name } of registers) {
      const refused = nic.refusals.counts.register;
      writeBar(nic, BAR_REGISTERS, REG[name], 4, 0x1234);
      if (access === "RO") {
        assert.equal(nic.refusals.counts.register, refused + 1, name);
        assert.ok(nic.refusals.last.includes(name), nic.refusals.last);
      }
      if (pair) assert.equal(readBar(nic, BAR_REGISTERS, REG[name], 4), 0x1234, name);
      if (access === "WO") {
        assert.equal(readBar(nic, BAR_REGISTERS, REG[name], 4), 0, name);
      }
    }
  }
  bench.close();
});
