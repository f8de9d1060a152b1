/** The package of `npm pack` is complete, and refers to nothing outside of it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { builtinModules } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, normalize } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const text = (file: string): string => readFileSync(join(ROOT, file), "utf8");
const manifest = JSON.parse(text("package.json")) as {
  version: string;
  dependencies: Record<string, string>;
  exports: Record<string, string>;
};

/** Paths in the tarball. */
let packed: string[] = [];
let size = 0;

before(() => {
  const run = spawnSync("npm", ["pack", "--dry-run", "--ignore-scripts", "--json"], {
    cwd: ROOT,
    encoding: "utf8",
    timeout: 60_000,
  });
  assert.equal(run.status, 0, run.stderr);
  const [{ files, size: bytes }] = JSON.parse(run.stdout) as [
    { files: { path: string }[]; size: number },
  ];
  packed = files.map(({ path }) => path);
  size = bytes;
});

/** Returns the specifiers that a module or its types import, without comments. */
function specifiers(file: string): string[] {
  const code = text(file)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\s*\/\/.*$/gm, "");
  const found = code.matchAll(
    /(?:^(?:import|export|\}).*?\sfrom |^import |(?<!\.)\bimport\()"([^"]+)"/gm,
  );
  return [...found].map((m) => m[1]);
}

test("package holds no tests, fuzzers, fixtures or hostile module", () => {
  const files = /\.test\.|hostile|^test\/|\.tsbuildinfo/;
  const folders = /testdata|\/fuzz\/|\/random\/|\/refusals\//;
  const wrong = packed.filter((path) => files.test(path) || folders.test(path));
  assert.deepEqual(wrong, []);
  assert.ok(packed.includes("dist/src/cli/main.js"));
  assert.ok(packed.includes("driver/linux/main.c"));
  // Tests and fixtures are a quarter of the whole: with them it exceeds this.
  assert.ok(size < 1_700_000, `${size} bytes`);
});

test("package holds what each of its modules imports", () => {
  const have = new Set(packed);
  const modules = packed.filter((path) => /^(src|dist|examples)\/.*\.(js|ts)$/.test(path));
  assert.ok(modules.length > 500, `${modules.length} modules`);
  const missing: string[] = [];
  for (const file of modules) {
    for (const specifier of specifiers(file)) {
      const name = specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1)[0];
      if (specifier.startsWith("node:")) {
        if (!builtinModules.includes(specifier.slice(5))) missing.push(`${file}: ${specifier}`);
      } else if (specifier.startsWith(".")) {
        // Types name the source (`./x.ts`), which rewriting leaves in .d.ts files.
        const target = normalize(join(dirname(file), specifier));
        const built = target.replace(/\.ts$/, ".d.ts");
        if (!have.has(target) && !have.has(built)) missing.push(`${file}: ${specifier}`);
      } else if (name !== "bpfhv" && !(name in manifest.dependencies)) {
        missing.push(`${file}: ${specifier}`);
      }
    }
  }
  assert.deepEqual(missing, []);
});

test("package holds what its exports name, each with types", () => {
  const have = new Set(packed);
  for (const target of Object.values(manifest.exports)) {
    const path = normalize(target);
    assert.ok(have.has(path), path);
    if (path.endsWith(".js")) assert.ok(have.has(path.replace(/\.js$/, ".d.ts")), `${path}: types`);
  }
});

test("package holds what its Markdown pages link to", () => {
  const have = new Set(packed);
  const broken: string[] = [];
  let links = 0;
  for (const page of packed.filter((path) => path.endsWith(".md"))) {
    for (const [, target] of text(page).matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      links++;
      const path = normalize(join(dirname(page), target)).replace(/\/$/, "");
      if (!have.has(path) && !packed.some((other) => other.startsWith(`${path}/`))) {
        broken.push(`${page}: ${target}`);
      }
    }
  }
  assert.ok(links > 20, `${links} links`);
  assert.deepEqual(broken, []);
});

const project = mkdtempSync(join(tmpdir(), "bpfhv-package-"));
after(() => rmSync(project, { recursive: true, force: true }));

test("package's root and each of its paths can be imported by name", () => {
  const modules = join(project, "node_modules");
  spawnSync("mkdir", ["-p", modules]);
  symlinkSync(ROOT, join(modules, "bpfhv"));
  // Without one, a package.json in a parent folder would determine "bpfhv".
  writeFileSync(join(project, "package.json"), "{}");
  assert.deepEqual(readdirSync(modules), ["bpfhv"]);
  const paths = Object.keys(manifest.exports).filter((path) => !path.endsWith(".json"));
  const code = `${paths
    .map(
      (path) => `const m = await import(${JSON.stringify(`bpfhv${path.slice(1)}`)});
      if (Object.keys(m).length === 0) throw new Error(${JSON.stringify(path)} + " is empty");`,
    )
    .map((line) => `{ ${line} }`)
    .join("\n")}
    process.stdout.write((await import("bpfhv")).version);`;
  const run = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
    cwd: project,
    encoding: "utf8",
    timeout: 60_000,
  });
  assert.equal(run.stdout, manifest.version, run.stderr);
});

test("command refuses a Node.js older than the manifest's engines", () => {
  const script = join(ROOT, "dist/src/cli/node-version.js");
  const old = `Object.defineProperty(process.versions, "node", { value: "18.20.4" });`;
  const code = `${old} await import(${JSON.stringify(script)}); process.stdout.write("started");`;
  const run = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
    encoding: "utf8",
  });
  assert.deepEqual([run.status, run.stdout], [1, ""]);
  assert.match(run.stderr, /^bpfhv: needs Node\.js 20\.19 or newer, this is 18\.20\.4: /);
  const first = /^import .*$/m.exec(text("src/cli/main.ts"))![0];
  assert.equal(first, 'import "./node-version.ts";', "it is checked before anything else loads");
});

/** Runs make in a folder and returns its output. */
function make(...words: string[]) {
  const run = spawnSync("make", ["-s", "-C", join(ROOT, "driver/linux"), ...words], {
    encoding: "utf8",
  });
  assert.equal(run.status, 0, run.stderr);
  return run.stdout;
}

const withoutMake = spawnSync("make", ["--version"]).error && "make is not installed";

test("module's sources for DKMS hold what builds and nothing else", { skip: withoutMake }, () => {
  make("dkms-sources", `DESTDIR=${project}`);
  const folder = join(project, "usr/src", `bpfhv-${manifest.version}`);
  const files = readdirSync(folder);
  assert.deepEqual(
    files.filter((file) => !/\.[ch]$|^(Kbuild|Makefile|dkms\.conf|probe\.sh)$/.test(file)),
    [],
  );
  const lines = text("driver/linux/Kbuild").matchAll(/^bpfhv-y :?\+?= (.*)$/gm);
  const objects = [...lines].flatMap(([, names]) => names.split(" "));
  assert.ok(objects.length > 10);
  assert.ok(files.includes("probe.sh"), "Kbuild runs it");
  assert.ok(!files.includes("bpfhv_config.h"), "it is of the kernel that was built for last");
  for (const object of objects) assert.ok(files.includes(object.replace(/\.o$/, ".c")), object);
});

test("module's Makefile prints its help", { skip: withoutMake }, () => {
  const help = make("help");
  for (const target of ["make install", "make dkms-sources", "make clean", "KERNEL="]) {
    assert.ok(help.includes(target), target);
  }
});

test("module, its DKMS file and the package have one version", () => {
  const { version } = manifest;
  assert.ok(text("driver/linux/main.c").includes(`MODULE_VERSION("${version}");`));
  assert.ok(text("driver/linux/dkms.conf").includes(`PACKAGE_VERSION="${version}"`));
});

test("DKMS builds for Linux 5.10 and newer only", () => {
  const [, pattern] = /^BUILD_EXCLUSIVE_KERNEL="(.*)"$/m.exec(text("driver/linux/dkms.conf"))!;
  const kernels = [
    "4.19.0",
    "5.4.0-x",
    "5.9.1",
    "5.10.0-30-amd64",
    "5.15.1",
    "6.1.0",
    "6.18.3",
    "7.0.1",
  ];
  const built = kernels.filter((kernel) => new RegExp(pattern).test(kernel));
  assert.deepEqual(built, kernels.slice(3));
});
