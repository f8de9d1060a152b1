/** Notices of a port reach the log of `bpfhv serve`. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { captureOf, testFrame } from "../../test/support/net.ts";
import { until } from "../../test/support/os.ts";
import { GuestDriver } from "./driver.ts";
import { LocalMemory } from "./memory.ts";
import { VfioUserClient } from "./vfio-user-client.ts";

const MAIN = fileURLToPath(new URL("../cli/main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-notices-"));
after(() => rmSync(folder, { recursive: true, force: true }));

test("serve logs the frames that were not replayed when a capture ends", async () => {
  const socket = join(folder, "nic.sock");
  const capture = join(folder, "cut.pcap");
  const frames = [1, 2, 3].map((number) => testFrame(number, 60));
  // The second frame is too long, and the third one is truncated.
  writeFileSync(capture, captureOf(frames, [60, 1514, 60]).subarray(0, -1));
  const words = [MAIN, "serve", "--socket", socket, "--net", `pcap:replay=${capture}`];
  const server = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  server.stderr.on("data", (chunk) => {
    log += chunk;
  });
  try {
    await until("the server to wait for QEMU", () => log.includes("waiting"));
    const memory = new LocalMemory(16 << 20);
    const client = new VfioUserClient(socket, memory, 3);
    const driver = new GuestDriver(client, memory);
    driver.open();
    const got: Uint8Array[] = [];
    for (let n = 0; got.length === 0 && n < 2000; n++) {
      driver.receive(0, (frame) => got.push(frame.slice()));
      await sleep(5);
    }
    assert.deepEqual(got, frames.slice(0, 1));
    await until("the notice in the log", () => log.includes("replayed"));
    const told = /cut\.pcap: 1 packet replayed; not replayed: 1 of which .*packet 3 is truncated/;
    assert.match(log, told);
    client.close();
    memory.close();
  } finally {
    server.kill("SIGKILL");
  }
});
