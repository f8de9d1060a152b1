/** Dependencies between folders are acyclic. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const SRC = fileURLToPath(new URL("../../../src", import.meta.url));

/** Folders that each one may import, besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "index.ts": [],
  "errors.ts": [],
  abi: [],
  os: [],
  memory: ["abi", "os"],
  ebpf: ["abi"],
  compiler: ["abi", "ebpf"],
  devices: ["abi", "memory", "ebpf", "compiler"],
  net: ["os", "memory"],
  engine: ["devices", "net", "memory", "os", "abi"],
  nic: ["abi", "engine", "devices", "net", "memory", "os"],
  "vfio-user": ["os", "memory"],
  frontends: ["nic", "engine", "vfio-user", "devices", "net", "memory", "ebpf", "os", "abi"],
  control: [
    ...["errors.ts", "frontends", "nic", "engine", "vfio-user", "devices", "net", "memory"],
    ...["os", "abi"],
  ],
  guest: ["abi", "ebpf", "vfio-user", "memory", "os"],
  suite: ["abi", "ebpf", "guest", "nic", "engine", "devices", "net", "memory", "os"],
  vm: ["os", "errors.ts"],
  cli: [
    ...[
      "vm",
      "errors.ts",
      "control",
      "frontends",
      "nic",
      "engine",
      "vfio-user",
      "devices",
      "net",
      "memory",
      "os",
      "abi",
    ],
    ...["guest", "suite", "ebpf", "compiler"],
  ],
};

/** Tests, and modules that only tests import, may import anything. */
const isTest = (file: string): boolean => /\.test\.ts$/.test(file);

interface Import {
  readonly file: string;
  /** The imported file. */
  readonly target: string;
  readonly from: string;
  readonly to: string;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(SRC, file), "utf8");
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map((m) => m[1]);
  return specifiers.map((specifier) => {
    const target = relative(SRC, resolve(SRC, dirname(file), specifier));
    return { file, target, from: file.split("/")[0], to: target.split("/")[0] };
  });
}

const files = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter(
  (file) => file.endsWith(".ts") && !isTest(file),
);

test("folders of src are listed", () => {
  for (const file of files) assert.ok(file.split("/")[0] in MAY_IMPORT, file);
});

test("folders import only those that they may", () => {
  const wrong = files
    .flatMap(importsOf)
    .filter(({ from, to }) => from !== to && !MAY_IMPORT[from].includes(to))
    .map(({ file, to }) => `${file} imports ${to}`);
  assert.deepEqual(wrong, []);
});

/** Files whose imports, of types too, lead back to themselves. */
function cyclic(rooms: readonly string[]): string[] {
  const inside = files.filter((file) => rooms.includes(file.split("/")[0]));
  const targets = new Map(
    inside.map((file) => [file, importsOf(file).map(({ target }) => target)] as const),
  );
  const reaches = (from: string, to: string, seen = new Set<string>()): boolean =>
    (targets.get(from) ?? []).some((next) => {
      if (next === to) return true;
      if (seen.has(next)) return false;
      seen.add(next);
      return reaches(next, to, seen);
    });
  return inside.filter((file) => reaches(file, file));
}

test("files of engine and nic import each other in no cycle", () => {
  assert.deepEqual(cyclic(["engine", "nic"]), []);
});

test("native calls are made in src/os only", () => {
  const native = files.filter((file) => /from "koffi"/.test(readFileSync(join(SRC, file), "utf8")));
  assert.deepEqual(
    native.filter((file) => !file.startsWith("os/")),
    [],
  );
  assert.ok(native.length > 0);
});
