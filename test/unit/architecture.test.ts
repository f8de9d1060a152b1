/** The pages that name files and functions name ones that exist. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseSync } from "oxc-parser";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PAGE = "docs/architecture.md";
/** Files that describe a packet's way in one direction, at most. */
const MAX_FILES = 8;
const text = (file: string): string => readFileSync(join(ROOT, file), "utf8");

/** Names of functions and methods that a node declares, itself or below. */
function declaredIn(node: unknown, names: Set<string>): Set<string> {
  if (Array.isArray(node)) for (const one of node) declaredIn(one, names);
  else if (node !== null && typeof node === "object") {
    const { type, key, id, init } = node as Record<string, { name?: string; type?: string }> & {
      type: string;
    };
    if (/^(MethodDefinition|TSMethodSignature|TSAbstractMethodDefinition)$/.test(type)) {
      names.add(key?.name ?? "");
    } else if (type === "FunctionDeclaration") names.add(id?.name ?? "");
    else if (type === "VariableDeclarator" && /Function/.test(init?.type ?? "")) {
      names.add(id?.name ?? "");
    }
    for (const value of Object.values(node)) declaredIn(value, names);
  }
  return names;
}

function functionsOf(file: string): Set<string> {
  const source = text(file);
  if (file.endsWith(".ts")) return declaredIn(parseSync(file, source).program, new Set());
  const definitions = source.matchAll(/^[a-z][\w \t*]*?\b(\w+)\([^;{]*\)\s*\{/gm);
  return new Set([...definitions].map((match) => match[1]));
}

interface Named {
  readonly file: string;
  readonly name: string;
}

/** `file` `name()` pairs; more names may follow for the same file. */
function namedFunctions(markdown: string): Named[] {
  const found: Named[] = [];
  let file = "";
  for (const [, quoted] of markdown.matchAll(/`([^`\n]+)`/g)) {
    if (/^(src|driver|test)\/.*\.(ts|c)$/.test(quoted)) file = quoted;
    const name = /^(\w+)\(\)$/.exec(quoted)?.[1];
    if (name === undefined) continue;
    assert.notEqual(file, "", `${name}() stands behind the file that it is in`);
    found.push({ file, name });
  }
  return found;
}

function section(title: string): string {
  const body = text(PAGE).split(`\n## ${title}\n`)[1];
  assert.ok(body !== undefined, `${PAGE} has a section "${title}"`);
  return body.split("\n## ")[0];
}

test("architecture page names functions that exist in the named files", () => {
  const named = namedFunctions(text(PAGE));
  const missing = named.filter(
    ({ file, name }) => !existsSync(join(ROOT, file)) || !functionsOf(file).has(name),
  );
  assert.deepEqual(missing, []);
  assert.ok(named.length >= 15, `${named.length} functions`);
});

for (const way of ["out", "in"]) {
  test(`architecture page tells a packet's way in at most ${MAX_FILES} files: ${way}`, () => {
    const named = namedFunctions(section(`A packet's way ${way}`));
    const files = new Set(named.map(({ file }) => file));
    assert.ok(files.size >= 4 && files.size <= MAX_FILES, [...files].join(", "));
  });
}

test("pages name files and folders that exist", () => {
  const docs = readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" });
  const pages = ["README.md", "CONTRIBUTING.md", "src/README.md"];
  pages.push(...docs.filter((file) => file.endsWith(".md")).map((file) => `docs/${file}`));
  const missing: string[] = [];
  let paths = 0;
  for (const page of pages) {
    for (const [, path] of text(page).matchAll(
      /`((?:src|driver|test|docs|script|bench|examples)\/[\w./-]*\w)`/g,
    )) {
      paths++;
      if (!existsSync(join(ROOT, path))) missing.push(`${page}: ${path}`);
    }
  }
  assert.deepEqual(missing, []);
  assert.ok(paths > 50, `${paths} paths`);
});

test("finder of functions knows methods, functions and C definitions, and no calls", () => {
  const pair = functionsOf("src/os/epoll.ts");
  assert.ok(pair.has("wait") && !pair.has("push"));
  const tx = functionsOf("driver/linux/tx.c");
  assert.ok(tx.has("bpfhv_start_xmit") && !tx.has("netif_tx_stop_queue"));
});
