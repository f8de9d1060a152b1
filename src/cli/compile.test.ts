import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const MAIN = fileURLToPath(new URL("main.js", import.meta.url));
const SRING = fileURLToPath(new URL("../../../src/devices/sring/guest.ts", import.meta.url));

const compile = (...args: string[]) =>
  spawnSync(process.execPath, [MAIN, "compile", ...args], { encoding: "utf8" });

test("a device's programs are compiled with their constants, and shown with their source", () => {
  const { stdout, status } = compile(SRING, "--define", "bufs=64");
  assert.equal(status, 0);
  assert.match(stdout, /^; txp\n; .*guest\.ts:\d+: const count = .*\n {3}0: r\d = \*\(u32 \*\)/);
  assert.match(stdout, /&= 63\n/);
  assert.doesNotMatch(stdout, /call/);
  assert.match(compile(SRING, "--define", "bufs=64", "--form", "v1").stdout, /call/);
});

test("a missing constant is named, with its place and what to do", () => {
  const { stderr, status } = compile(SRING);
  assert.equal(status, 1);
  assert.match(stderr, /guest\.ts:\d+:\d+: no value was given for bufs .*--define bufs=1/);
});
