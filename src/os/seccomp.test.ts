import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { filterFor } from "./seccomp.ts";

const os = (name: string) => JSON.stringify(new URL(`./${name}.js`, import.meta.url).href);

/** Runs in a process of its own: the filter is irrevocable. */
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
  worker.once("error", reject);
  // Its thread has ended then, and is not among those that are read.
  let answer;
  worker.once("message", (code) => (answer = code));
  worker.once("exit", () => resolve(answer));
});
const threads = readdirSync("/proc/self/task").map((id) =>
  /NoNewPrivs:\\t1/.test(readFileSync("/proc/self/task/" + id + "/status", "utf8")),
);
const code = run.error?.code;
console.log(JSON.stringify({ confined, run: code, inWorker, text: text.length, threads }));
`;

test("confined process starts no program in any thread and otherwise works", {
  skip: process.arch === "x64" ? false : "the refused calls are known for x86-64 only",
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

/** Runs a filter of loads, jumps and returns as the kernel does. @returns its verdict */
function verdict(number: number, arch: number): number {
  const filter = filterFor("x64");
  let loaded = 0;
  for (let at = 0; at < filter.length; at++) {
    const [code, ifTrue, ifFalse, value] = filter[at];
    if (code === 0x06) return value;
    if (code === 0x20) loaded = value === 0 ? number : arch;
    else if (code === 0x15) at += loaded === value ? ifTrue : ifFalse;
    else if (code === 0x35) at += loaded >= value ? ifTrue : ifFalse;
    else assert.fail(`instruction ${at}: code ${code}`);
  }
  return assert.fail("the filter has no return");
}

test("seccomp filter refuses a call when it uses the i386 or x32 table", () => {
  const [x64, i386, allowed, refused] = [0xc000003e, 0x40000003, 0x7fff0000, 0x00050001];
  assert.deepEqual([verdict(0, x64), verdict(441, x64)], [allowed, allowed]);
  assert.deepEqual(
    [verdict(59, x64), verdict(442, x64), verdict(163, x64)],
    [refused, refused, refused],
  );
  // execve: 11 of i386, 520 of x32.
  assert.deepEqual([verdict(11, i386), verdict(3, i386)], [refused, refused]);
  assert.deepEqual([verdict(0x40000000 + 520, x64), verdict(0x40000000, x64)], [refused, refused]);
});
