#!/usr/bin/env node
// Runs every compiled `*.test.js` in the given folders (default: src, test/unit, test/fuzz).
// Node 20's test runner takes files, not globs, so the files are found here.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const wanted = process.argv.slice(2).filter((a) => !a.startsWith("--"));
const flags = process.argv.slice(2).filter((a) => a.startsWith("--"));

function find(folder) {
  if (existsSync(`${folder}.test.js`)) return [`${folder}.test.js`];
  if (!existsSync(folder)) return [];
  if (statSync(folder).isFile()) return [folder];
  return readdirSync(folder, { recursive: true })
    .map((name) => join(folder, name))
    .filter((name) => name.endsWith(".test.js"));
}

const rooms = wanted.length > 0 ? wanted : ["src", "test/unit", "test/fuzz"];
const files = rooms
  .flatMap((room) => find(join(root, "dist", room.replace(/\.ts$/, ".js"))))
  // The build folder may still hold compiled tests whose sources have moved.
  .filter((file) => existsSync(join(root, relative(join(root, "dist"), file).replace(/js$/, "ts"))))
  .sort();
if (files.length === 0) {
  console.error(`no compiled tests in ${rooms.join(", ")}: run 'npm run build' first`);
  process.exit(1);
}
const run = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...flags, ...files], {
  stdio: "inherit",
});
process.exit(run.status ?? 1);
