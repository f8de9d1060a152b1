/** A backend that makes its TAP, in a network namespace of this test's own. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { requires, until } from "../../test/support/os.ts";
import { statusOf } from "../control/client.ts";
import type { NicStatus } from "../nic/status.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const NS = `bpfhv-backend-${process.pid}`;
const folder = mkdtempSync(join(tmpdir(), "bpfhv-backend-tap-"));
const socket = join(folder, "s");
const children: ChildProcess[] = [];

function missingForTap(): string {
  if (process.getuid?.() !== 0) return "needs root";
  if (!existsSync("/dev/net/tun")) return "needs /dev/net/tun";
  try {
    execFileSync("ip", ["netns", "add", NS], { stdio: "ignore" });
    return "";
  } catch {
    return "needs ip(8) from iproute2 and network namespaces";
  }
}

const missing = missingForTap();
const skip = missing === "" || requires("tap") ? false : missing;

after(() => {
  for (const child of children) child.kill("SIGKILL");
  if (missing === "") execFileSync("ip", ["netns", "delete", NS]);
  rmSync(folder, { recursive: true, force: true });
});

const ip = (...words: string[]): string => execFileSync("ip", ["-n", NS, ...words]).toString();
const exists = (): boolean => ip("-brief", "link").includes("t0");

function run(...words: string[]): ChildProcess {
  const child = spawn(process.execPath, [MAIN, ...words], { stdio: "ignore" });
  children.push(child);
  return child;
}

const backend = () =>
  run(
    ...["backend", "-p", socket, "--reconnect", "-i", "t0", "--netns", NS, "--create-tap"],
    ...["--tap-address", "10.55.0.1/24"],
  );
const status = () => statusOf(socket) as Promise<NicStatus>;
const exit = (child: ChildProcess) => new Promise((resolve) => child.once("exit", resolve));

const mac = (): string => /link\/ether (\S+)/.exec(ip("link", "show", "t0"))?.[1] ?? "";

test("a TAP is made with its address, carries packets, and is removed; its MAC stays", {
  skip,
}, async () => {
  let first = "";
  for (let round = 0; round < 2; round++) {
    const child = backend();
    await until("the backend is there", async () => (await status().catch(() => null)) !== null);
    assert.match(ip("address", "show", "t0"), /10\.55\.0\.1\/24/);
    if (round > 0) assert.equal(mac(), first);
    assert.match(mac(), /^52:54:00:/);
    first = mac();
    if (round === 0) {
      const driven = run("drive", "--socket", socket, "--packets", "300", "--size", "0");
      assert.equal(await exit(driven), 0);
      const { queues } = await status();
      const { packets, dropPort } = queues[1].counters;
      assert.deepEqual([packets, dropPort], [300, 0]);
      const statistics = JSON.parse(ip("-j", "-s", "link", "show", "t0"))[0].stats64.rx.packets;
      assert.equal(statistics, 300, "what the guest sent, the host's kernel received");
    }
    child.kill("SIGTERM");
    assert.equal(await exit(child), 0);
    assert.equal(exists(), false);
  }
});

function ticks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

test("a TAP that is taken away: the link is down, and the backend does not spin", {
  skip,
}, async () => {
  const child = backend();
  await until("the backend is there", async () => (await status().catch(() => null)) !== null);
  const driven = run("drive", "--socket", socket, "--direction", "rx", "--duration", "60");
  await until("packets may flow", async () => (await status()).step === "enabled");
  ip("link", "delete", "t0");
  await until("the link is down", async () => (await status()).link === "down");
  const before = ticks(child.pid as number);
  await sleep(1500);
  assert.ok(ticks(child.pid as number) - before < 40, "of 150 ticks");
  driven.kill("SIGKILL");
  child.kill("SIGTERM");
  assert.equal(await exit(child), 0);
});
