// This project's cases: several for each instruction of each conformance group, on both runners.
// The expected results were computed with another language's integers, from the text of RFC 9669.
import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeProgram, SLOT } from "../instruction.ts";
import { ENCODINGS, type Encoding, type FieldName, type Group } from "../opcode.ts";
import type { RunnerName } from "../runners.ts";
import { caseCode, parseCase } from "./case.ts";
import { RUNNERS } from "./engines.ts";
import { inSuiteForm, OWN_CASES, ownCasesOf } from "./own-cases.ts";
import { runCase } from "./run.ts";

/** Calls and addresses whose meaning RFC 9669 leaves to the platform: always refused here. */
const isForeign = ({ operation }: Encoding): boolean =>
  (operation.kind === "call" && operation.target === "btf") ||
  (operation.kind === "wide" && operation.value !== "value") ||
  operation.kind === "packet";

const GROUPS = [...new Set(ENCODINGS.filter((e) => !isForeign(e)).map((e) => e.group))];
/** Least number of cases per instruction: a single one may pass by accident. */
const LEAST = 2;

const casesOf = (group: Group): string[] =>
  ownCasesOf(`${OWN_CASES}/${group}.txt`, group).map(({ line }) => line);

for (const group of GROUPS) {
  for (const engine of Object.keys(RUNNERS) as RunnerName[]) {
    test(`cases of the group ${group} pass on the ${engine}`, () => {
      for (const line of casesOf(group)) {
        const { passed, detail, groups } = runCase(inSuiteForm(line), RUNNERS[engine]);
        assert.ok(passed, `${line}: ${detail}`);
        assert.ok(groups.includes(group), line);
      }
    });
  }

  test(`instructions of the group ${group} have cases for each type of operand`, () => {
    const times = new Map<Encoding, number>();
    for (const line of casesOf(group)) {
      const code = caseCode(parseCase(inSuiteForm(line)));
      for (const encoding of new Set(decodeProgram(code).map((i) => i.encoding))) {
        times.set(encoding, (times.get(encoding) ?? 0) + 1);
      }
    }
    const without = ENCODINGS.filter(
      (e) => e.group === group && !isForeign(e) && (times.get(e) ?? 0) < LEAST,
    );
    assert.deepEqual(
      without.map((e) => e.operation),
      [],
    );
  });
}

for (const engine of Object.keys(RUNNERS) as RunnerName[]) {
  test(`platform-defined instruction is refused with its name by the ${engine}`, () => {
    const foreign = ENCODINGS.filter(isForeign);
    assert.ok(foreign.length > 10, String(foreign.length));
    for (const encoding of foreign) {
      const text = `-- raw\n${rawWith(encoding, "dst", 0)}\n95 00 00 00 00 00 00 00\n-- error\n`;
      const { passed, detail } = runCase(text, RUNNERS[engine]);
      assert.ok(passed, `${JSON.stringify(encoding.operation)}: ${detail}`);
      assert.match(detail, /^instruction 0: /);
    }
  });
}

const FIELDS: readonly FieldName[] = ["dst", "src", "offset", "imm"];

/** Returns one instruction as the suite's raw bytes, with only one field not 0. */
function rawWith(
  { opcode, selector, operation }: Encoding,
  field: FieldName,
  value: number,
): string {
  const fields = { dst: 0, src: 0, offset: 0, imm: 0 };
  if (selector !== undefined) fields[selector.field as "imm"] = selector.value;
  fields[field as "imm"] = value;
  const bytes = Buffer.alloc(operation.kind === "wide" ? 2 * SLOT : SLOT);
  bytes.writeUInt8(opcode, 0);
  bytes.writeUInt8((fields.src << 4) | fields.dst, 1);
  bytes.writeInt16LE(fields.offset, 2);
  bytes.writeInt32LE(fields.imm, 4);
  return bytes.toString("hex").replace(/../g, "$& ");
}

for (const engine of Object.keys(RUNNERS) as RunnerName[]) {
  test(`unused field is refused by the ${engine} when it is not zero`, () => {
    let refused = 0;
    for (const encoding of ENCODINGS) {
      for (const field of FIELDS) {
        if (encoding.uses.includes(field) || encoding.selector?.field === field) continue;
        for (const value of field === "dst" || field === "src" ? [1, 9] : [1, -1]) {
          const raw = rawWith(encoding, field, value);
          const text = `-- raw\n${raw}\n95 00 00 00 00 00 00 00\n-- error\n`;
          const { passed, detail } = runCase(text, RUNNERS[engine]);
          assert.ok(passed, `${JSON.stringify(encoding.operation)}, ${field} ${value}: ${detail}`);
          assert.match(detail, /^instruction 0: /);
          refused++;
        }
      }
    }
    assert.ok(refused > 300, String(refused));
  });
}
