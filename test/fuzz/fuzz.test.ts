/**
 * Each target for a second, the inputs that once failed, and campaigns against code with a fault.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Campaign, type Result, replay } from "./campaign.ts";
import { corpusFiles, readEntry } from "./corpus.ts";
import { caseRandom } from "./target.ts";
import { FAULTY_CASE } from "./targets/faulty.ts";
import { findTarget, TARGETS } from "./targets/index.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const SEED = 20_261_127;
/** Separate from the tree's corpus. */
const corpus = mkdtempSync(join(tmpdir(), "bpfhv-fuzz-corpus-"));
after(() => rmSync(corpus, { recursive: true, force: true }));

function campaign(name: string, milliseconds: number, caseMs?: number): Promise<Result> {
  const more = caseMs === undefined ? {} : { caseMs };
  const options = { milliseconds, seed: SEED, corpus, ...more };
  return new Campaign(findTarget(name)!, options).run();
}

for (const { name, unit } of TARGETS) {
  test(`${name} holds for a second of random ${unit}`, async () => {
    const result = await campaign(name, 1000);
    assert.deepEqual(result.finds, []);
    assert.ok(result.cases > 0 && result.units > 0, `${result.cases} cases`);
    assert.ok(result.checks >= 2, "a good client is served at the start and at the end");
  });
}

for (const file of corpusFiles()) {
  test(`${basename(file)} stays fixed`, async () => {
    assert.equal(await replay(readEntry(file).target, file), null);
  });
}

for (const during of ["find", "crash", "hang", "check"] as const) {
  test(`a campaign finds the fault when the code under test has a ${during}`, async () => {
    const { finds } = await campaign(`faulty-${during}`, 3000, 1500);
    assert.ok(finds.length > 0, "nothing found");
    const [first] = finds;
    assert.equal(first!.during, during === "find" ? "case" : during);
    if (during !== "check") return assert.equal(first!.case, FAULTY_CASE);
    assert.match(first!.error, /a check that fails/);
    const { inputs } = readEntry(first!.file!);
    assert.ok(inputs.length > FAULTY_CASE, "all since the check before are kept");
    assert.match((await replay("faulty-check", first!.file!)) ?? "", /a check that fails/);
  });
}

for (const target of TARGETS) {
  test(`${target.name} makes the same inputs when the seed is the same`, () => {
    const inputs = (seed: number): string =>
      JSON.stringify([0, 1, 2].map((n) => target.generate(caseRandom(seed, n))));
    assert.equal(inputs(7), inputs(7));
    assert.notEqual(inputs(7), inputs(8));
  });
}

const WRONG: readonly (readonly [string, string[], RegExp])[] = [
  ["an unknown target", ["faulty-find"], /unknown target "faulty-find"; see script\/fuzz --help/],
  ["no minutes", ["--minutes", "0"], /--minutes 0: use more than 0/],
  ["a seed that is not a number", ["--seed", "x"], /--seed x: use a whole number from 0/],
  ["an unknown option", ["--nope"], /--nope/],
];

for (const [what, words, message] of WRONG) {
  test(`script/fuzz exits with status 2 and one line when given ${what}`, () => {
    const { status, stderr } = spawnSync(process.execPath, [MAIN, ...words], { encoding: "utf8" });
    assert.equal(status, 2);
    assert.match(stderr, message);
    assert.equal(stderr.trim().split("\n").length, 1);
  });
}

test("script/fuzz ends with the table, the JSON and status 130 when interrupted", async () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-fuzz-test-"));
  try {
    const json = join(folder, "out.json");
    const words = [MAIN, "--minutes", "5", "--seed", "9", "--json", json, "registers", "proxy"];
    const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
    const ended = new Promise((resolve) => child.once("close", resolve));
    let output = "";
    child.stdout.on("data", (chunk) => {
      output += chunk;
      if (/^seed 9/m.test(chunk)) setTimeout(() => child.kill("SIGINT"), 500);
    });
    assert.equal(await ended, 130);
    assert.match(output, /^target .* finds\nregisters .* 0\nseed 9$/m);
    const { seed, interrupted, results } = JSON.parse(readFileSync(json, "utf8"));
    assert.deepEqual([seed, interrupted, results.length], [9, true, 1]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
