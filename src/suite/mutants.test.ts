/** The suite finds what a ring format can get wrong: the example passes, its mutants fail. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { loadFormat } from "../devices/registry.ts";
import { suiteOf } from "./index.ts";

const MINI = readFileSync(
  fileURLToPath(new URL("../../../examples/mini-ring.ts", import.meta.url)),
  "utf8",
);
const folder = mkdtempSync(join(tmpdir(), "bpfhv-mutants-"));
after(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;

/** Groups in which a check fails. */
async function failing(text: string, groups: readonly string[]): Promise<string[]> {
  const file = join(folder, `${files++}.ts`);
  writeFileSync(file, text);
  const format = await loadFormat(pathToFileURL(file).href);
  const failed = new Set<string>();
  for (const { group, run } of suiteOf(format, { sizes: [16], runs: 4 })) {
    if (!groups.includes(group)) continue;
    try {
      run();
    } catch {
      failed.add(group);
    }
  }
  return [...failed];
}

const ALL = ["programs", "rings", "wakeups", "reopen", "conservation", "lies"];

test("suite passes for the example in one file", async () => {
  assert.ok(MINI.split("\n").length <= 150);
  assert.deepEqual(await failing(MINI, ALL), []);
});

/** What is wrong, what is replaced by what, and a group that finds it. */
const MUTANTS: readonly [what: string, from: string, to: string, group: string][] = [
  ["does not check again after arming", "ring.cons - ring.clear < wanted ? 0 : 1", "0", "wakeups"],
  ["never asks for a kick", "kick !== 0 ? nic.OFLAG_KICK_NEEDED : 0", "0", "wakeups"],
  [
    "leaves the host's index when it reclaims",
    "ring.cons = clear + 1",
    "ring.cons = clear",
    "rings",
  ],
  ["leaves the interrupt unarmed when it reclaims", "ring.intr = ring.prod;", "", "reopen"],
  ["loses the cookie", "buffer.cookie = slot.cookie;", "", "rings"],
  ["takes half of the slots", "[index & (bufs - 1)]", "[index & (bufs / 2 - 1)]", "rings"],
  ["does not mask an index", "[index & (bufs - 1)]", "[index]", "programs"],
  ["has a context that is too small", "SLOT.size * bufs", "SLOT.size * (bufs - 1)", "programs"],
  ["interrupts for every packet", 'interrupt: "slot"', 'interrupt: "each"', "rings"],
  [
    "returns a packet before it is complete",
    "clear === cons ? 0",
    "clear === cons + 9 ? 0",
    "rings",
  ],
  ["interrupts a slot late", "ring.clear + wanted - 1", "ring.clear + wanted", "wakeups"],
];

for (const [what, from, to, group] of MUTANTS) {
  test(`suite fails for a ring that ${what}`, async () => {
    assert.ok(MINI.includes(from), from);
    assert.deepEqual(await failing(MINI.replaceAll(from, to), [group]), [group]);
  });
}
