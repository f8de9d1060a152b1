/** The scripts refuse invalid options before they install, build or boot anything. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** Runs a script. Its preparations would show on standard error. */
function script(name: string, words: readonly string[]) {
  return spawnSync("/bin/bash", [`${ROOT}script/${name}`, ...words], {
    encoding: "utf8",
    env: { PATH: "/usr/bin:/bin", HOME: "/nonexistent", BPFHV_CACHE: "/nonexistent" },
    timeout: 10_000,
  });
}

function assertRefused(name: string, refused: readonly (readonly [string[], RegExp])[]): void {
  for (const [words, reason] of refused) {
    const { status, stdout, stderr } = script(name, words);
    assert.match(stderr, new RegExp(`^script/${name}: [^\\n]+\\n$`), words.join(" "));
    assert.match(stderr, reason);
    assert.deepEqual([status, stdout], [2, ""]);
  }
}

test("script/demo refuses wrong options in one line, with status 2", () => {
  assertRefused("demo", [
    [["--nope"], /unknown option --nope/],
    [["extra"], /unknown option extra/],
    [["--rounds", "x"], /--rounds x: use a whole number from 1 to 1000/],
    [["--rounds", "1001"], /--rounds 1001/],
    [["--rounds"], /--rounds needs a value/],
    [["--seconds", "0"], /--seconds 0: use a whole number from 1 to 3600/],
    [["--seconds=1.5"], /--seconds 1\.5/],
    [["--devices", "sring,e1000"], /there are sring, sring_gso, vring_packed/],
    [["--devices", ","], /--devices is empty/],
    [["--json", "/nonexistent/x"], /a file in a folder/],
  ]);
});

test("script/bench refuses wrong options and names in one line, with status 2", () => {
  assertRefused("bench", [
    [["--nope"], /unknown option --nope/],
    [["nothing"], /no bench "nothing": script\/bench --list shows them/],
    [["../rows/jit"], /no bench/],
    [["--rounds", "0"], /--rounds 0: use a whole number from 1 to 1000/],
    [["jit", "--rounds"], /--rounds needs a value/],
    [["--against="], /--against is empty/],
    [["--write", "--against", "HEAD"], /--write with --against/],
    [["--json=/nonexistent/x"], /a file in a folder/],
  ]);
});

test("script/demo and script/bench print their usage with --help and prepare nothing", () => {
  for (const name of ["demo", "bench"]) {
    for (const words of [["--help"], ["-h"], ["--rounds", "1", "--help"]]) {
      const { status, stdout, stderr } = script(name, words);
      assert.ok(stdout.startsWith(`usage: script/${name} `));
      assert.deepEqual([status, stderr], [0, ""]);
    }
  }
});

test("progress of scripts is bold on a terminal only, and never with NO_COLOR", () => {
  const say = `. '${ROOT}script/lib/common.sh'; say hello`;
  const run = (env: Record<string, string>, terminal: boolean) => {
    const words = terminal
      ? ["script", "-qec", `bash -c "${say}"`, "/dev/null"]
      : ["bash", "-c", say];
    const [program, ...rest] = words;
    const { stdout, stderr } = spawnSync(program!, rest, {
      encoding: "utf8",
      env: { PATH: "/usr/bin:/bin", HOME: "/nonexistent", ...env },
    });
    return stdout + stderr;
  };
  assert.equal(run({}, false), "==> hello\n");
  assert.ok(run({}, true).startsWith("\x1b[1m==>\x1b[0m hello"));
  assert.match(run({ NO_COLOR: "1" }, true), /^==> hello/);
});

test("no script pipes into a reader that stops early", () => {
  // With pipefail, the writer's SIGPIPE is the pipeline's status: 141, if it was slower to write.
  const scripts = execFileSync("git", ["ls-files", "script", ".ci"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  const early = /\|\s*(head\b|grep\s+-\w*q|sed\s+(-n\s+)?['"]?\d*q)/;
  const found: string[] = [];
  let read = 0;
  for (const name of scripts.trim().split("\n")) {
    const text = readFileSync(`${ROOT}${name}`, "utf8");
    if (!/^#!.*\bbash|shellcheck shell=bash|pipefail/m.test(text)) continue;
    read++;
    const lines = text.replaceAll("\\\n", " ").split("\n");
    found.push(
      ...lines.filter((l) => early.test(l) && !/\|\| true/.test(l)).map((l) => `${name}: ${l}`),
    );
  }
  assert.ok(read >= 8, `${read} scripts read`);
  assert.deepEqual(found, []);
});
