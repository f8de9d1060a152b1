import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

const os = (name: string) => JSON.stringify(new URL(`./${name}.js`, import.meta.url).href);

/** What a confined process may still do, in a process of its own: the filter stays for good. */
const CODE = `
const { forbidNewPrivileges } = await import(${os("process")});
const { confineThreads } = await import(${os("seccomp")});
const { spawnSync } = await import("node:child_process");
const { readFileSync, readdirSync } = await import("node:fs");
const { readFile } = await import("node:fs/promises");
const { Worker } = await import("node:worker_threads");
forbidNewPrivileges();
const confined = confineThreads();
const run = spawnSync("/bin/true");
const text = await readFile("/proc/self/status", "utf8");
const inWorker = await new Promise((resolve, reject) => {
  const worker = new Worker(
    "require('node:worker_threads').parentPort.postMessage(" +
      "require('node:child_process').spawnSync('/bin/true').error?.code)",
    { eval: true, execArgv: [] },
  );
  worker.once("message", resolve);
  worker.once("error", reject);
});
const threads = readdirSync("/proc/self/task").map((id) =>
  /NoNewPrivs:\\t1/.test(readFileSync("/proc/self/task/" + id + "/status", "utf8")),
);
console.log(JSON.stringify({ confined, run: run.error?.code, inWorker, text: text.length, threads }));
`;

test("a confined process starts no program in any thread, and goes on otherwise", {
  skip: process.arch === "x64" ? false : "what is refused is known for x86-64",
}, () => {
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", CODE], {
    encoding: "utf8",
    timeout: 20_000,
  });
  assert.notEqual(stdout, "", stderr);
  const { confined, run, inWorker, text, threads } = JSON.parse(stdout);
  assert.deepEqual([confined, run, inWorker], [true, "EPERM", "EPERM"]);
  assert.ok(text > 0);
  assert.ok(threads.length > 1 && threads.every(Boolean));
});
