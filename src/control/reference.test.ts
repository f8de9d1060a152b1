/**
 * The reference of the spec, the curl examples and the example file: what is written down holds.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { completeSpecs, readConfig } from "./config-file.ts";
import { LIMITS } from "./http-server.ts";
import { ROUTES } from "./routes.ts";
import { FIELD_NAMES, type FieldName, fieldOf } from "./spec.ts";

const ROOT = new URL("../../../", import.meta.url);
const OPERATING = readFileSync(new URL("docs/operating.md", ROOT), "utf8");

/** A field's row in the table of docs/operating.md. */
function rowOf(name: FieldName): string {
  const { schema, option, default: value, defaultWords, change } = fieldOf(name);
  const range = schema.type === "integer" ? `${schema.minimum} to ${schema.maximum}` : schema.type;
  const values = schema.type === "string" && schema.enum ? schema.enum.join(", ") : range;
  const byDefault = defaultWords ?? JSON.stringify(value);
  const live = typeof change === "string" ? "no" : "yes";
  return `| \`${name}\` | \`${option.split(" ", 1)[0]}\` | ${values} | ${byDefault} | ${live} |`;
}

test("docs/operating.md has a row for each field of a spec, and no other", () => {
  const rows = FIELD_NAMES.filter((name) => fieldOf(name).hidden !== true).map(rowOf);
  const found = OPERATING.split("\n").filter((line) => /^\| `\w+` \| `--/.test(line));
  assert.deepEqual(found, rows);
});

test("docs/operating.md names each path of the API, and its limits", () => {
  for (const [path, operations] of Object.entries(ROUTES)) {
    const row = `| \`${Object.keys(operations).join("`, `")}\` | \`${path}\` |`;
    assert.ok(OPERATING.includes(row), row);
  }
  for (const words of [`${LIMITS.clients} clients`, `${LIMITS.streams} of them`, "64 KiB"]) {
    assert.ok(OPERATING.includes(words), words);
  }
});

test("examples/vm1.toml is the spec of two NICs", async () => {
  const file = fileURLToPath(new URL("examples/vm1.toml", ROOT));
  const specs = completeSpecs(await readConfig(file));
  assert.deepEqual(
    specs.map(({ name, port }) => [name, port]),
    [
      ["lan", "tap:tap0"],
      ["wan", "tap:tap1"],
    ],
  );
});
