/**
 * Servers whose worker hangs in a system call: they say so, and a
 * signal ends them in time, cleaned up.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { atMost, until } from "../../test/support/os.ts";
import { statusOf } from "../control/client.ts";
import { controlPath } from "../control/socket-path.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-hung-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/**
 * In the worker: as soon as the flag is there, the loop's next look at
 * the clock reads a pipe that stays empty.
 */
const preload = (flag: string): string => `
import { existsSync } from "node:fs";
import { isMainThread } from "node:worker_threads";
import { pipe } from ${JSON.stringify(new URL("../../test/support/os.js", import.meta.url).href)};
import * as libc from ${JSON.stringify(new URL("../os/libc.js", import.meta.url).href)};
if (!isMainThread) {
  const now = performance.now.bind(performance);
  performance.now = () => {
    if (existsSync(${JSON.stringify(flag)})) libc.read(pipe()[0], libc.STRUCT_ADDRESS, 1);
    return now();
  };
}`;

class Hanging {
  readonly socket: string;
  readonly pidFile: string;
  readonly child: ChildProcess;
  readonly #flag: string;
  text = "";

  constructor(name: string, words: (socket: string, pidFile: string) => string[]) {
    this.socket = join(folder, `${name}.sock`);
    this.pidFile = join(folder, `${name}.pid`);
    this.#flag = join(folder, `${name}.flag`);
    const hook = join(folder, `${name}.mjs`);
    writeFileSync(hook, preload(this.#flag));
    const all = ["--import", `${pathToFileURL(hook)}`, MAIN, ...words(this.socket, this.pidFile)];
    this.child = spawn(process.execPath, all);
    this.child.stderr?.on("data", (data) => {
      this.text += data;
    });
  }

  async ready(): Promise<void> {
    await until("an answer", () => statusOf(this.socket).catch(() => null));
  }

  /** @returns when its worker reads the pipe */
  async hang(): Promise<void> {
    writeFileSync(this.#flag, "");
    // An idle loop turns once a second.
    await sleep(1500);
  }

  async end(signal: NodeJS.Signals): Promise<{ status: number | null; ms: number }> {
    const start = performance.now();
    const ended = new Promise<number | null>((resolve) => this.child.once("exit", resolve));
    this.child.kill(signal);
    const hard = setTimeout(() => this.child.kill("SIGKILL"), 60_000);
    const status = await ended;
    clearTimeout(hard);
    return { status, ms: performance.now() - start };
  }
}

function serving(name: string): Hanging {
  return new Hanging(name, (socket, pid) => [
    ...["serve", "--socket", socket, "--net", "null", "--pid-file", pid],
  ]);
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`serve ends in time and cleans up at ${signal} when its worker hangs`, async () => {
    const server = serving(signal);
    await server.ready();
    assert.ok(existsSync(server.pidFile));
    await server.hang();
    // Somebody waits for an answer meanwhile.
    const asked = statusOf(server.socket).catch((error: Error) => error.message);
    const { status, ms } = await server.end(signal);
    await asked;
    assert.equal(status, 1, server.text);
    assert.ok(ms < atMost(2000), `${ms} ms`);
    assert.match(server.text, /does not stop: it hangs in read on fd \d+ \(pipe:/);
    for (const path of [server.socket, controlPath(server.socket), server.pidFile]) {
      assert.equal(existsSync(path), false, path);
    }
  });
}

test("serve ends in time at SIGTERM when the workers of all its NICs hang", async () => {
  const other = join(folder, "other.sock");
  const server = new Hanging("several", (socket, pid) => {
    const file = join(folder, "several.toml");
    const nics = [socket, other].map((path) => `[[nic]]\nsocket = "${path}"\nport = "null"\n`);
    writeFileSync(file, nics.join(""));
    return ["serve", "--config", file, "--pid-file", pid];
  });
  await server.ready();
  await until("an answer", () => statusOf(other).catch(() => null));
  await server.hang();
  const { status, ms } = await server.end("SIGTERM");
  assert.equal(status, 1, server.text);
  assert.ok(ms < atMost(2000), `${ms} ms`);
  assert.match(
    server.text,
    /2 of 2 NICs failed \(\w+: the worker does not stop: .*; \w+: the worker/,
  );
  for (const path of [server.socket, other]) assert.equal(existsSync(path), false, path);
});

test("serve logs once, and status shows, which call its worker hangs in", async () => {
  const server = serving("watched");
  await server.ready();
  await server.hang();
  const answer = await statusOf(server.socket).catch((error: Error) => error);
  assert.match(JSON.stringify(answer) + String(answer), /has hung for 3 s/);
  const again = await statusOf(server.socket).catch((error: Error) => error);
  assert.match(JSON.stringify(again) + String(again), /has hung for 3 s/);
  await server.end("SIGTERM");
  assert.equal(server.text.match(/has hung for 3 s: it is in read on fd/g)?.length, 1);
});

test("backend ends in time and cleans up when its worker hangs", async () => {
  const backend = new Hanging("backend", (socket, pid) => [
    ...["backend", "-p", socket, "-b", "null", "-P", pid, "--reconnect"],
  ]);
  const vmm = createServer();
  await new Promise<void>((resolve) => vmm.listen(backend.socket, resolve));
  try {
    await backend.ready();
    assert.ok(Number(readFileSync(backend.pidFile, "utf8")) > 0);
    await backend.hang();
    const { status, ms } = await backend.end("SIGTERM");
    assert.equal(status, 1, backend.text);
    assert.ok(ms < atMost(2000), `${ms} ms`);
    assert.match(backend.text, /does not stop: it hangs in read on fd \d+ \(pipe:/);
    assert.equal(existsSync(controlPath(backend.socket)), false);
    assert.equal(existsSync(backend.pidFile), false);
  } finally {
    vmm.close();
  }
});
