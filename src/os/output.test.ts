import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openFds } from "../../test/support/os.ts";
import { close } from "./fd.ts";
import * as libc from "./libc.ts";
import { Output } from "./output.ts";
import { socketPair } from "./unix-socket.ts";

const F_SETFL = 4;
const O_RDWR = 2;
const PIECE = new Uint8Array(4096).fill(0x61);

function fill(output: Output): number {
  let written = 0;
  for (let n = output.write(PIECE); n > 0; n = output.write(PIECE)) {
    written += n;
    assert.ok(written < 1e8, "it is full at some time");
  }
  return written;
}

test("output blocks neither its writer nor another process when the shared pipe is full", () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-output-"));
  const before = openFds();
  const path = join(folder, "pipe");
  spawnSync("mkfifo", [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, constants.O_WRONLY);
  const output = new Output(writer);
  const written = fill(output);
  assert.ok(written >= 4096);
  const flags = readFileSync(`/proc/self/fdinfo/${writer}`, "utf8");
  assert.equal(Number.parseInt(/flags:\s+(\d+)/.exec(flags)?.[1] ?? "", 8) & 0o4000, 0);
  assert.equal(readSync(reader, Buffer.alloc(8192)), 8192);
  assert.ok(output.write(PIECE) > 0, "there is room again");
  closeSync(reader);
  assert.throws(() => output.write(PIECE), { code: "EPIPE" });
  output.close();
  closeSync(writer);
  assert.equal(openFds(), before);
  rmSync(folder, { recursive: true });
});

test("output returns when its socket is full and blocking", () => {
  const [a, b] = socketPair();
  assert.equal(libc.fcntl(a, F_SETFL, O_RDWR), 0);
  const output = new Output(a);
  assert.ok(fill(output) >= 4096);
  close(b);
  assert.throws(() => output.write(PIECE), { code: /EPIPE|ECONNRESET/ });
  close(a);
});

test("output appends when it is a file", () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-output-"));
  const fd = openSync(join(folder, "file"), "w");
  const output = new Output(fd);
  const text = Buffer.from("x".repeat(5000));
  assert.equal(output.write(text), 4096);
  assert.equal(output.write(text, 4096), 904);
  assert.equal(readFileSync(join(folder, "file"), "utf8"), text.toString());
  output.close();
  closeSync(fd);
  rmSync(folder, { recursive: true });
});
