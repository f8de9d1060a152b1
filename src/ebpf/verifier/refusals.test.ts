// Unsafe programs, one per rule and variant: each is refused
// at the right place for the right reason.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import test from "node:test";
import { CONTEXT } from "../../../test/support/refusals/context.ts";
import { CONTROL, FUNCTIONS } from "../../../test/support/refusals/control.ts";
import { HELPERS, RESULTS } from "../../../test/support/refusals/helpers.ts";
import { KERNELS } from "../../../test/support/refusals/kernels.ts";
import { SIZE } from "../../../test/support/refusals/row.ts";
import { STACK } from "../../../test/support/refusals/stack.ts";
import { ADDRESSES, REGISTERS } from "../../../test/support/refusals/values.ts";
import { assembleText } from "../text.ts";
import { explain, summarise, verify } from "./index.ts";

const ROWS = [
  CONTEXT,
  STACK,
  REGISTERS,
  ADDRESSES,
  CONTROL,
  FUNCTIONS,
  HELPERS,
  RESULTS,
  KERNELS,
].flat();

for (const [what, program, rule, index, message, options] of ROWS) {
  test(`verifier refuses ${what}`, () => {
    const code = program instanceof Uint8Array ? program : assembleText(program as string[]);
    const verdict = verify({ name: "test", code }, { contextSize: SIZE, ...options });
    const { refusal } = verdict;
    assert.ok(refusal !== undefined, `accepted: ${summarise(verdict)}`);
    assert.match(refusal.message, message);
    assert.deepEqual([refusal.rule, refusal.index], [rule, index], summarise(verdict));
    assert.ok(refusal.fix.length > 10, "the refusal suggests no fix");
    assert.equal(summarise(verdict).split("\n").length, 1);
  });
}

test("table has a program for every rule", () => {
  assert.ok(ROWS.length >= 60);
  const rules = new Set(ROWS.map((row) => row[2]));
  assert.equal(rules.size, 24, [...rules].join(" "));
});

/** Logs of loops would make the fixture too long. */
const LOG_LINES = 30;
const FIXTURE = new URL("../../../../src/ebpf/verifier/testdata/messages.txt", import.meta.url);

test("messages, paths and short logs equal the recorded ones (BPFHV_RECORD=1 records)", () => {
  const texts = ROWS.map(([what, program, , , , options]) => {
    const code = program instanceof Uint8Array ? program : assembleText(program as string[]);
    const verdict = verify({ name: "test", code }, { contextSize: SIZE, log: true, ...options });
    return `# ${what}\n${explain(verdict, verdict.log.length <= LOG_LINES ? 2 : 1)}\n`;
  });
  const text = texts.join("\n");
  if (process.env.BPFHV_RECORD === "1") writeFileSync(FIXTURE, text);
  assert.equal(text, readFileSync(FIXTURE, "utf8"));
});
