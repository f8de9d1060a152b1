import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { FORMATS } from "../devices/registry.ts";

const MAIN = fileURLToPath(new URL("main.js", import.meta.url));

function verify(args: readonly string[], input: string | Uint8Array = "") {
  const { stdout, stderr, status } = spawnSync(process.execPath, [MAIN, "verify", ...args], {
    input,
    encoding: "utf8",
  });
  return { stdout, stderr, status };
}

for (const { name } of FORMATS) {
  test(`the programs of ${name} are accepted, one line each`, () => {
    const { stdout, status } = verify(["--device", name, "--bufs", "256"]);
    const lines = stdout.trimEnd().split("\n");
    assert.equal(status, 0);
    assert.match(
      lines[0]!,
      /^rxp: accepted: \d+ instructions, at most \d+ executed, \d+ bytes of stack$/,
    );
    assert.equal(lines.at(-1), `${lines.length - 1} accepted, 0 refused`);
  });
}

const UNSAFE = "r2 = *(u32 *)(r1 + 16)\nif r2 == 0 goto +1\nr1 += r2\nr0 = *(u8 *)(r1 + 0)\nexit\n";

test("a refusal takes one line, with -v the path, with -vv every state; the exit status is 1", () => {
  const line =
    "stdin: instruction 2 `r1 += r2`: moves an address by a number that has no bound (1..4294967295); " +
    "mask the number with a constant, or compare it with one, before adding it [POINTER_ARITHMETIC]\n";
  const args = ["--context-size", "4096", "-"];
  assert.deepEqual(verify(args, UNSAFE), { stdout: line, stderr: "", status: 1 });
  const path =
    "  path to it:\n    1: if r2 == 0 goto +1  not taken\n" +
    "  before it: r1=context + 0, r2=1..4294967295\n";
  assert.equal(verify(["-v", ...args], UNSAFE).stdout, line + path);
  const { stdout } = verify(["-vv", ...args], UNSAFE);
  assert.match(stdout, /^0: r2 = \*\(u32 \*\)\(r1 \+ 16\) +; r1=context \+ 0\n1: if r2/);
  assert.ok(stdout.endsWith(line + path));
});

test("--json has the rule, the place, the fix and the path", () => {
  const { stdout, status } = verify(["--json", "--context-size", "4096", "-"], UNSAFE);
  const [verdict] = JSON.parse(stdout);
  assert.equal(status, 1);
  assert.equal(verdict.accepted, false);
  assert.deepEqual([verdict.refusal.rule, verdict.refusal.index], ["POINTER_ARITHMETIC", 2]);
  assert.deepEqual(verdict.refusal.path[0].taken, false);
  assert.match(verdict.refusal.fix, /mask the number/);
});

test("--program and --form decide which helpers may be called, and what may be returned", () => {
  const alloc = "call 1267662848\nexit\n";
  const at = ["--context-size", "4096", "-"];
  assert.equal(verify(["--form", "v1", "--program", "rxc", ...at], alloc).status, 0);
  assert.match(verify(["--form", "v1", "--program", "txp", ...at], alloc).stdout, /HELPER_PROGRAM/);
  assert.match(verify(["--program", "rxc", ...at], alloc).stdout, /HELPER_FORM/);
  assert.match(verify(["--program", "txp", ...at], "r0 = 1\nexit").stdout, /RETURN_VALUE/);
});

test("wrong use is reported in one line, with exit status 2", () => {
  for (const [args, message] of [
    [[], /^bpfhv: give a file, or --device\n$/],
    [["-"], /^bpfhv: the size of the context decides what is safe: give --context-size/],
    [["--device", "nope"], /^bpfhv: unknown device "nope": there are sring/],
    [["--device", "sring", "--bufs", "17"], /^bpfhv: --bufs 17: use a power of two/],
    [["--device", "sring", "--context-size", "9"], /^bpfhv: --context-size goes with a file/],
  ] as const) {
    const { stderr, status } = verify(args, "r0 = 0\nexit");
    assert.match(stderr, message);
    assert.equal(status, 2);
  }
});
