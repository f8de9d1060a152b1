import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { formatMac } from "../nic/config.ts";
import { machineMac } from "./mac.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-mac-"));
after(() => rmSync(folder, { recursive: true, force: true }));

function macOn(machine: string, path: string): string {
  const file = join(folder, machine);
  writeFileSync(file, `${machine}\n`);
  return formatMac(machineMac(path, file));
}

test("the address differs when machine or path differ, and otherwise stays", () => {
  const one = macOn("5e0f1d", "/run/vm1.sock");
  assert.match(one, /^52:54:00:/);
  assert.equal(macOn("5e0f1d", "/run/vm1.sock"), one);
  assert.notEqual(macOn("a77b02", "/run/vm1.sock"), one);
  assert.notEqual(macOn("5e0f1d", "/run/vm2.sock"), one);
  assert.doesNotThrow(() => machineMac("/run/vm1.sock", join(folder, "none")));
});
