/**
 * A NIC's worker loads beside the main thread: that is lost as soon as anything is imported before
 * it starts.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-early-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Writes a line for each module that is loaded. */
const HOOKS = `
import { appendFileSync } from "node:fs";
let log;
export const initialize = (data) => { log = data; };
export async function load(url, context, next) {
  if (url.startsWith("file:")) appendFileSync(log, "module " + url + "\\n");
  return next(url, context);
}`;

/** Writes a line for each worker that is started. */
const preload = (log: string): string => `
import { appendFileSync } from "node:fs";
import { register, syncBuiltinESMExports } from "node:module";
import threads from "node:worker_threads";
if (threads.isMainThread) {
  const log = ${JSON.stringify(log)};
  register("./hooks.mjs", import.meta.url, { data: log });
  const { Worker } = threads;
  threads.Worker = class extends Worker {
    constructor(module, options) {
      appendFileSync(log, "worker " + module + "\\n");
      super(module, options);
    }
  };
  syncBuiltinESMExports();
}`;

/** What happens in order: "module main.js", "worker nic-worker.js", … */
function eventsOf(...words: string[]): string[] {
  const log = join(folder, `${words.join("-")}.log`);
  const file = join(folder, "preload.mjs");
  writeFileSync(log, "");
  writeFileSync(file, preload(log));
  writeFileSync(join(folder, "hooks.mjs"), HOOKS);
  spawnSync(process.execPath, ["--import", `${pathToFileURL(file)}`, MAIN, ...words], {
    timeout: 60_000,
  });
  const lines = readFileSync(log, "utf8").trim().split("\n");
  return lines.map((line) => line.replace(/\S+$/, (path) => basename(path)));
}

test("serve starts its worker before it imports what reads the command line, or anything else", () => {
  // Without --socket that is an error: the worker is there before.
  const events = eventsOf("serve");
  const start = events.indexOf("worker nic-worker.js");
  assert.ok(start >= 0, events.join(", "));
  assert.deepEqual(events.slice(0, start).sort(), [
    "module errors.js",
    "module main.js",
    "module node-version.js",
    "module waiting-worker.js",
  ]);
  assert.ok(events.indexOf("module serve.js") > start);
  // HTTP is loaded when packets may flow already.
  for (const name of ["api.js", "http-server.js", "open-api.js"]) {
    assert.ok(!events.includes(`module ${name}`), name);
  }
});

test("other commands start no worker", () => {
  const events = eventsOf("status");
  assert.ok(events.includes("module status.js"), events.join(", "));
  assert.ok(!events.some((event) => event.startsWith("worker ")));
});
