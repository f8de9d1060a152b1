/** `bpfhv serve --config` and `bpfhv apply`: files that describe one NIC, or several. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { until } from "../../test/support/os.ts";
import { ask, statusOf } from "../control/client.ts";
import { controlPath } from "../control/socket-path.ts";
import type { NicStatus } from "../nic/status.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-apply-"));
const file = join(folder, "vm1.toml");
const [lan, wan] = ["lan", "wan"].map((name) => join(folder, `${name}.sock`));
let server: ChildProcess;

/** Fields of both NICs, beside name and socket. */
function write(ofLan: string, ofWan: string): void {
  const nic = (name: string, socket: string, fields: string) =>
    `[[nic]]\nname = "${name}"\nsocket = "${socket}"\n${fields}\n`;
  writeFileSync(`${file}.new`, nic("lan", lan, ofLan) + nic("wan", wan, ofWan));
  renameSync(`${file}.new`, file);
}

interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

function apply(...words: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, "apply", file, ...words], (error, out, err) => {
      resolve({ status: error === null ? 0 : Number(error.code), out, err });
    });
  });
}

const nic = async (socket: string) => (await statusOf(socket)) as NicStatus;

before(async () => {
  write("maxMtu = 9000", 'device = "vring_packed"\nqueues = 2');
  const words = [MAIN, "serve", "--config", file, "--log-level", "silent"];
  server = spawn(process.execPath, words, { stdio: "ignore" });
  for (const socket of [lan, wan]) await until(socket, () => statusOf(socket).catch(() => null));
});

after(() => {
  server.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

test("serve --config serves each NIC on a socket of its own, in one process", async () => {
  const [first, second] = [await nic(lan), await nic(wan)];
  assert.deepEqual([first.device, second.device], ["sring", "vring_packed"]);
  assert.deepEqual([first.mtu, first.queues.length, second.queues.length], [1500, 2, 4]);
  assert.notEqual(first.mac, second.mac);
  const pids = [first, second].map((each) => (each as NicStatus & { pid: number }).pid);
  assert.deepEqual(pids, [server.pid, server.pid]);
  for (const socket of [lan, wan]) {
    const { body } = await ask(controlPath(socket), { path: "/v1/nics" });
    const { nics } = body as { nics: { name: string; socket: string }[] };
    const found = nics.map((each) => [each.name, each.socket]);
    assert.deepEqual(found, [
      ["lan", lan],
      ["wan", wan],
    ]);
    const other = await ask(controlPath(socket), { path: "/v1/nics/wan" });
    assert.equal((other.body as { spec: { device: string } }).spec.device, "vring_packed");
  }
});

test("apply changes what differs, and with --dry-run only says so", async () => {
  assert.match(
    (await apply()).out,
    /lan\.sock: nothing to change\n.*wan\.sock: nothing to change\n/,
  );
  write(
    'maxMtu = 9000\nmtu = 3000\nport = "null"',
    'device = "vring_packed"\nqueues = 2\nmtu = 1400\nmaxMtu = 1500',
  );
  const lines = [
    `${lan}: port: sink -> null`,
    `${lan}: mtu: 1500 -> 3000`,
    `${wan}: mtu: 1500 -> 1400`,
  ];
  assert.deepEqual(await apply("--dry-run"), { status: 0, out: `${lines.join("\n")}\n`, err: "" });
  assert.equal((await nic(lan)).mtu, 1500);
  assert.deepEqual(await apply(), { status: 0, out: `${lines.join("\n")}\n`, err: "" });
  assert.deepEqual([(await nic(lan)).mtu, (await nic(lan)).port], [3000, "null"]);
  assert.equal((await nic(wan)).mtu, 1400);
  const [first] = (await apply("--json")).out.split("\n");
  assert.deepEqual(JSON.parse(first), { socket: lan, changed: [] });
});

test("apply changes no NIC when one of them cannot become what the file says", async () => {
  const { mtu } = await nic(lan);
  write(`maxMtu = 9000\nmtu = ${mtu - 1}`, 'device = "vring_packed"\nspeed = 5\nqueues = 3');
  const { status, out, err } = await apply();
  assert.equal(status, 1);
  assert.match(err, /^bpfhv: queues: cannot change from 2 to 3 .*; speed: .*\n$/);
  assert.equal(out, "");
  assert.equal((await nic(lan)).mtu, mtu);
  write("mtu = 67", "");
  const wrong = await apply();
  assert.equal(wrong.status, 2);
  assert.match(
    wrong.err,
    /^bpfhv: .*vm1\.toml: nic 1: mtu 67: use a whole number from 68 to 65535\n$/,
  );
  writeFileSync(file, '[nic]\nsocket = "x"\n[[nics]]\n');
  assert.match((await apply()).err, /vm1\.toml: nics: unknown: write \[nic\]/);
  write("", `mac = "${(await nic(lan)).mac}"`);
  assert.match((await apply()).err, /^bpfhv: mac 52:54:.*: two NICs have it: change one\n$/);
});

test("apply --watch applies the file whenever it changes, and goes on after a mistake", async () => {
  const wanFields = 'device = "vring_packed"\nqueues = 2\nmaxMtu = 1500';
  write("maxMtu = 9000\nmtu = 2000", wanFields);
  const watcher = spawn(process.execPath, [MAIN, "apply", file, "--watch"]);
  let err = "";
  watcher.stderr.on("data", (chunk) => {
    err += chunk;
  });
  try {
    await until("the first state", async () => (await nic(lan)).mtu === 2000);
    write("maxMtu = 9000\nmtu = 67", wanFields);
    await until("the mistake to be told", () => /mtu 67: use a whole number/.test(err));
    write("maxMtu = 9000\nmtu = 2100", wanFields);
    await until("the next state", async () => (await nic(lan)).mtu === 2100);
  } finally {
    watcher.kill("SIGKILL");
  }
});

test("a NIC whose port cannot be opened fails alone, and the API says why", async () => {
  const own = join(folder, "one-fails.toml");
  const [good, bad] = ["good", "bad"].map((name) => join(folder, `${name}.sock`));
  const ports = [`socket = "${good}"`, `socket = "${bad}"\nport = "tap:bpfhv-none"`];
  writeFileSync(own, ports.map((lines) => `[[nic]]\n${lines}\n`).join(""));
  const words = [MAIN, "serve", "--config", own, "--log-level", "silent"];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "pipe"] });
  let err = "";
  child.stderr.on("data", (chunk) => {
    err += chunk;
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  try {
    await until("the good one", () => statusOf(good).catch(() => null));
    const { body } = await ask(controlPath(good), { path: "/v1/nics" });
    const { nics } = body as { nics: { name: string; state: string; failure: string | null }[] };
    assert.deepEqual(
      nics.map(({ name, state }) => [name, state]),
      [
        ["good", "running"],
        ["bad", "failed"],
      ],
    );
    assert.match(nics[1].failure ?? "", /bpfhv-none: no such interface/);
    const asked = await ask(controlPath(good), { path: "/v1/nics/bad" });
    assert.equal(asked.status, 503);
    assert.match((asked.body as { error: string }).error, /no such interface/);
  } finally {
    child.kill("SIGTERM");
  }
  assert.equal(await ended, 1);
  assert.match(err, /^bpfhv: 1 of 2 NICs failed .*no such interface/);
});

test("a server of several NICs ends in order when it is asked to", async () => {
  const ended = new Promise<number | null>((resolve) => server.once("exit", resolve));
  server.kill("SIGTERM");
  assert.equal(await ended, 0);
  for (const socket of [lan, wan]) {
    for (const path of [socket, controlPath(socket)]) {
      assert.throws(() => rmSync(path), { code: "ENOENT" });
    }
  }
});
