/** `bpfhv new`: a folder with a small NIC that works, its test, and what an editor needs. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { failure, Usage } from "../errors.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

interface Manifest {
  readonly version: string;
  readonly devDependencies: Readonly<Record<string, string>>;
}

export function newCommand(): Command {
  return new Command("new")
    .description("write a small ring format that works, with its test: a start for your own")
    .argument("<name>", "folder to make: its last part names the ring format, for example my-nic")
    .addHelpText("after", "\nNothing is overwritten: the folder must be new or empty.")
    .action((name: string) => {
      process.stdout.write(writeStart(name));
    });
}

/** @returns the next commands, for people. @throws CommandError */
function writeStart(path: string): string {
  const folder = resolve(path);
  const name = basename(folder);
  if (!/^[a-z][a-z0-9-]{0,30}$/.test(name)) {
    throw new Usage(`name "${name}": use 1 to 31 of a-z, 0-9 and -, a letter first`);
  }
  try {
    mkdirSync(folder, { recursive: true });
    const [first] = readdirSync(folder);
    if (first !== undefined) {
      throw failure(`${folder} holds ${first} already: give a folder that is new or empty`);
    }
    for (const [file, text] of Object.entries(filesOf(name))) {
      writeFileSync(join(folder, file), text, { flag: "wx" });
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code === undefined ? error : failure(`cannot write ${folder}: ${code}`);
  }
  return nextSteps(path, name);
}

function filesOf(name: string): Record<string, string> {
  return {
    [`${name}.ts`]: nicText(name),
    [`${name}.test.ts`]: testText(name),
    "package.json": json(packageOf(name)),
    "tsconfig.json": json({ compilerOptions: COMPILER_OPTIONS, include: ["*.ts"] }),
    ".gitignore": "node_modules\n",
  };
}

/** The package's example under another name. */
function nicText(name: string): string {
  return readFileSync(join(ROOT, "examples/mini-ring.ts"), "utf8")
    .replaceAll("mini-ring", name)
    .replaceAll("mini_ring", name.replaceAll("-", "_"));
}

/** Text, so that nobody takes it for a test of this package. */
function testText(name: string): string {
  return readFileSync(join(ROOT, "examples/start/test.txt"), "utf8").replaceAll("my-nic", name);
}

const COMPILER_OPTIONS = {
  ...{ target: "es2023", lib: ["es2023"], types: ["node"] },
  ...{ module: "nodenext", moduleResolution: "nodenext" },
  ...{ strict: true, noEmit: true, allowImportingTsExtensions: true, skipLibCheck: true },
};

function packageOf(name: string): object {
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as Manifest;
  const { "@types/node": node, typescript } = manifest.devDependencies;
  // A checkout is installed from where it is.
  const isInstalled = ROOT.includes("/node_modules/");
  return {
    ...{ name, version: "0.0.0", private: true, type: "module" },
    scripts: {
      dev: `bpfhv dev ${name}.ts`,
      check: "tsc",
      test: `tsc && node --import bpfhv/register --test ${name}.test.ts && bpfhv test ${name}.ts`,
    },
    dependencies: { bpfhv: isInstalled ? `^${manifest.version}` : `file:${ROOT}` },
    devDependencies: { "@types/node": node, typescript },
  };
}

const json = (value: object): string => `${JSON.stringify(value, null, 2)}\n`;

function nextSteps(path: string, name: string): string {
  return [
    `wrote ${join(path, `${name}.ts`)}, its test, package.json and tsconfig.json`,
    "",
    `  cd ${path}`,
    ...(existsSync(join(path, "../node_modules/bpfhv")) ? [] : ["  npm install"]),
    `  npx bpfhv dev ${name}.ts     # runs it under load; edit and save: it is replaced`,
    `  npx bpfhv test ${name}.ts    # the checks that every ring format passes`,
    "  npm test                  # types, your test, and those checks",
    "",
  ].join("\n");
}
