/** `bpfhv drive` with a backend whose programs are in the shape of the original's. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { ORIGINAL_SHAPE_DEVICES } from "../../bench/clang/devices.ts";
import { Loop } from "../engine/loop.ts";
import { QueuePair } from "../engine/pair.ts";
import { BackendConnection } from "../frontends/proxy/connection.ts";
import { LoopbackPort } from "../net/loopback.ts";
import { drive } from "./drive-traffic.ts";

const THIS = fileURLToPath(import.meta.url);
const [, , asBackend, path, name] = process.argv;

if (asBackend === "backend") backend(path, name);
else for (const device of ORIGINAL_SHAPE_DEVICES) testWith(device.name);

/** A backend of one connection that sends everything back. */
function backend(socket: string, deviceName: string): void {
  const device = ORIGINAL_SHAPE_DEVICES.find((d) => d.name === deviceName)!;
  const pair = new QueuePair({
    ...{ port: new LoopbackPort("wait"), rxVector: 0, txVector: 1 },
    fire: (vector) => frontend.backend.fire(vector),
  });
  const frontend = new BackendConnection({
    ...{ device, features: device.features, pair, path: socket, reconnect: true },
    log: () => {},
    ended: () => {},
  });
  new Loop({ pairs: [pair], control: frontend }).run();
}

function testWith(device: string): void {
  test(`no packet and no metadata change when ${device} asks helpers for them`, () => {
    const folder = mkdtempSync(join(tmpdir(), "bpfhv-drive-"));
    const socket = join(folder, "s");
    const child = spawn(process.execPath, [THIS, "backend", socket, device], { stdio: "inherit" });
    try {
      const result = drive({
        ...{ socket, rxBufs: 256, txBufs: 256, seconds: 1, packets: Number.POSITIVE_INFINITY },
        ...{ direction: "both", size: 0, load: "full", offloads: true, waitMs: 20_000 },
      });
      assert.deepEqual([result.wrong, result.outOfOrder, result.stalls], [0, 0, 0]);
      assert.ok(result.received > 100, `${result.received} received`);
      assert.ok(result.withMetadata > result.received / 3, `${result.withMetadata} with metadata`);
    } finally {
      child.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    }
  });
}
