/** `bpfhv serve` reports the life of its NIC: in its log, and by `status`. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { BAR_REGISTERS, CTRL, REG } from "../abi/index.ts";
import { changeSpec, statusOf } from "../control/client.ts";
import { readNic } from "../control/nic-answer.ts";
import { GuestDriver } from "./driver.ts";
import { LocalMemory } from "./memory.ts";
import { VfioUserClient } from "./vfio-user-client.ts";

const MAIN = fileURLToPath(new URL("../cli/main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-log-"));
const socket = join(folder, "nic.sock");
let server: ChildProcess;
let log = "";

const status = async () => readNic(await statusOf(socket));

interface Line {
  readonly level: string;
  readonly nic: string;
  readonly msg: string;
}

const lines = (from = 0) =>
  log
    .slice(from)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Line);

before(async () => {
  server = spawn(process.execPath, [MAIN, "serve", "--socket", socket, "--net", "source"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  server.stderr?.on("data", (chunk) => {
    log += chunk;
  });
  await until("waiting", () => /waiting for QEMU/.test(log));
});

after(() => {
  server.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let n = 0; !(await holds()); n++) {
    assert.ok(n < 400, `${what} within 20 s: ${log}`);
    await sleep(50);
  }
}

test("serve logs driver, programs, link and reset in lines that name the NIC", async () => {
  const memory = new LocalMemory(16 << 20);
  const client = new VfioUserClient(socket, memory, 3);
  new GuestDriver(client, memory).open();
  await until("enabled", () => /the guest enabled the NIC/.test(log));
  client.close();
  memory.close();
  await until("gone", () => /client gone/.test(log));
  const texts = lines().map(({ msg }) => msg);
  const order = [
    /client connected/,
    /the guest's driver found the NIC/,
    /the guest fetched the programs/,
    /link up/,
    /the guest enabled the NIC: programs of set 1 verified by its kernel/,
    /client gone/,
  ].map((pattern) => texts.findIndex((text) => pattern.test(text)));
  assert.ok(
    order.every((at) => at >= 0),
    texts.join("\n"),
  );
  assert.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
    texts.join("\n"),
  );
  for (const line of lines()) assert.equal(line.nic, socket);
});

/** A worker's log drops later lines of the same second. */
const nextSecond = () => sleep(1100);

test("a client that connects right after another is not logged as a reset", async () => {
  await nextSecond();
  const from = log.length;
  const texts = () => lines(from).map(({ msg }) => msg);
  for (const opens of [true, false]) {
    const memory = new LocalMemory(16 << 20);
    const client = new VfioUserClient(socket, memory, 3);
    if (opens) new GuestDriver(client, memory).open();
    client.close();
    memory.close();
  }
  await until("all gone", () => texts().filter((text) => /client gone/.test(text)).length === 2);
  assert.ok(texts().some((text) => /the guest enabled/.test(text)));
  assert.ok(!texts().some((text) => /reset/.test(text)), log.slice(from));
});

test("each of several simultaneous refusals is logged once with its own cause", async () => {
  await nextSecond();
  const memory = new LocalMemory(1 << 20);
  const client = new VfioUserClient(socket, memory, 3);
  const from = log.length;
  client.write(BAR_REGISTERS, REG.CTX_PADDR_HI, 0x7fff);
  client.write(BAR_REGISTERS, REG.CTRL, CTRL.RX_ENABLE);
  const told = (text: RegExp) => lines(from).filter(({ msg }) => text.test(msg)).length;
  await until("both", () => told(/\(context\)/) > 0 && told(/\(enable\)/) > 0);
  assert.deepEqual([told(/context of queue 0 at 0x7fff/), told(/RX enable without/)], [1, 1], log);
  client.close();
  memory.close();
});

test("a port change is logged as requested, not as a lost port", async () => {
  const from = log.length;
  for (const port of ["null", "sink", "null", "source"]) await changeSpec(socket, { port });
  await sleep(1200);
  await status();
  await until("the last", () => /port: null -> source/.test(log.slice(from)));
  for (const { level, msg } of lines(from)) {
    assert.equal(level, "info", msg);
    assert.doesNotMatch(msg, /is gone|is back/);
  }
});

test("status shows a client that has connected and sent nothing", async () => {
  assert.equal((await status()).step, "no guest");
  const silent = connect(socket);
  await until("connected", async () => (await status()).step === "client connected");
  silent.destroy();
  await until("gone", async () => (await status()).step === "no guest");
});

test("status shows the server's version and its uptime", async () => {
  const { version, uptimeSeconds } = await status();
  assert.match(version, /^\d+\.\d+\.\d+/);
  assert.ok(uptimeSeconds >= 1 && uptimeSeconds < 600, `${uptimeSeconds}`);
});
