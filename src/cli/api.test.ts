/**
 * The API of a running server from curl: each request has one clear answer, and packets flow on.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { until } from "../../test/support/os.ts";
import { statusOf } from "../control/client.ts";
import { controlPath } from "../control/socket-path.ts";
import { GuestDriver } from "../guest/driver.ts";
import { LocalMemory } from "../guest/memory.ts";
import { VfioUserClient } from "../guest/vfio-user-client.ts";
import type { NicStatus } from "../nic/status.ts";

const FULL = process.env.BPFHV_FULL === "1";
const ROUNDS = FULL ? 12 : 5;
/** A third of what the requests would cost if all were kept, and what the collector may leave. */
const MOST_KIB = (ROUNDS * 10_000 * 2.5) / 3 + 24 * 1024;
const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const OPERATING = new URL("../../../docs/operating.md", import.meta.url);
const folder = mkdtempSync(join(tmpdir(), "bpfhv-curl-"));
const socket = join(folder, "vm1.sock");
let server: ChildProcess;
const memory = new LocalMemory(16 << 20);
let guest: VfioUserClient;
let pump: NodeJS.Timeout;
/** Packets that the guest has received. */
let received = 0;

before(async () => {
  const words = [MAIN, "serve", "--socket", socket, "--net", "source:rate=1000"];
  server = spawn(process.execPath, [...words, "--log-level", "silent"], { stdio: "ignore" });
  await until("the server's reply", () => statusOf(socket).catch(() => null));
  guest = new VfioUserClient(socket, memory, 3);
  const driver = new GuestDriver(guest, memory);
  driver.open();
  pump = setInterval(() => driver.receive(0, () => received++), 5);
});

after(() => {
  clearInterval(pump);
  guest.close();
  memory.close();
  server.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

/** @throws Error unless the guest receives packets from here on */
async function flows(): Promise<void> {
  const from = received;
  await until("packets", () => received > from + 100);
}

interface CurlAnswer {
  readonly code: number;
  readonly json: Record<string, never>;
}

function run(
  program: string,
  words: readonly string[],
  account: { uid?: number; gid?: number } = {},
): Promise<{ out: string; status: number }> {
  return new Promise((resolve) => {
    const options = { timeout: 60_000, maxBuffer: 16 << 20, ...account };
    execFile(program, words, options, (error, out) => {
      resolve({ out, status: error === null ? 0 : Number(error.code ?? -1) });
    });
  });
}

async function curl(path: string, ...words: string[]): Promise<CurlAnswer> {
  const all = ["-s", "--unix-socket", controlPath(socket), `http://nic${path}`];
  const { out } = await run("curl", [...all, "-w", "%{http_code}", ...words]);
  const [, json, code] = /^(.*)\n(\d+)$/s.exec(out) ?? assert.fail(out);
  return { code: Number(code), json: JSON.parse(json) };
}

const put = (body: object, query = "") =>
  curl(`/v1/nic${query}`, "-X", "PUT", "-d", JSON.stringify(body));

test("the curl commands of docs/operating.md do what it says", async () => {
  const text = readFileSync(OPERATING, "utf8");
  const commands = text.split("\n").filter((line) => line.startsWith("curl "));
  assert.ok(commands.length >= 4);
  for (const command of commands) {
    const own = command
      .replace("/run/vm1.sock.ctl", controlPath(socket))
      .replace("tap:tap1", "null");
    const { out, status } = await run("/bin/sh", ["-c", `${own} -s -S -f --max-time 3`]);
    const isStream = command.includes("/v1/events");
    // 28: the time is up.
    assert.equal(status, isStream ? 28 : 0, `${own}: ${out}`);
    if (!isStream) assert.ok("spec" in JSON.parse(out) || "plan" in JSON.parse(out), out);
  }
  const { json } = await curl("/v1/nic");
  assert.deepEqual(json.spec, { ...(json.spec as object), mtu: 1400, port: "source:rate=1000" });
  await flows();
});

test("curl gets, plans and puts a spec, and is refused what cannot change live", async () => {
  const { code, json } = await curl("/v1/nic");
  assert.equal(code, 200);
  const spec = json.spec as { port: string; mtu: number; name: string };
  assert.equal(spec.name, "vm1");
  assert.deepEqual(json.generation, { wanted: 1, running: 1 });
  const dry = await put({ ...spec, mtu: 1300 }, "?dry-run=1");
  const action = { verb: "set-mtu", field: "mtu", from: spec.mtu, to: 1300 };
  assert.deepEqual([dry.code, dry.json], [200, { plan: [action] }]);
  assert.equal(((await statusOf(socket)) as NicStatus).mtu, spec.mtu);
  const done = await put({ ...spec, mtu: 1300 });
  assert.deepEqual([done.code, done.json.changed], [200, [action]]);
  assert.equal(((await statusOf(socket)) as NicStatus).mtu, 1300);
  const refused = await put({ ...spec, queues: 2, mtu: 1200 });
  assert.equal(refused.code, 409);
  assert.match(refused.json.error, /^queues: cannot change from 1 to 2 while the NIC/);
  const failed = await put({ ...spec, mtu: 1200, port: "tap:bpfhv-none" });
  assert.equal(failed.code, 409);
  assert.match(failed.json.error, /no such interface.*\(the port stays as it was\)/);
  assert.equal(((await statusOf(socket)) as NicStatus).mtu, 1300);
  await flows();
});

test("curl is answered once, and clearly, when it asks for what there is not", async () => {
  const unknown = await curl("/v2/upgrade", "-d", '{"kind":"upgrade"}');
  assert.equal(unknown.code, 404);
  assert.match(unknown.json.error, /^unknown path \/v2\/upgrade: there are \/v1\/nic, /);
  assert.equal((await curl("/v1/nic", "-X", "DELETE")).code, 405);
  assert.equal((await put({ kind: "upgrade" })).code, 400);
  const file = join(folder, "garbage");
  writeFileSync(file, Buffer.alloc(1024 * 1024, "\x00\xffgarbage", "latin1"));
  for (const words of [
    ["-X", "PUT", "--data-binary", `@${file}`],
    ["-X", "PUT", "--data-binary", `@${file}`, "-H", "Transfer-Encoding: chunked"],
    ["-T", file, "-H", "Expect:"],
  ]) {
    const { code, json } = await curl("/v1/nic", ...words);
    assert.equal(code, 413, words.join(" "));
    assert.match(json.error, /the body is longer than 65536 bytes/);
  }
  assert.equal((await curl("/v1/nic", "-H", `x: ${"y".repeat(9000)}`)).code, 431);
  await flows();
});

test("a hundred clients at once are answered, and packets flow on", async () => {
  const urls = Array.from({ length: 100 }, () => "http://nic/v1/nic");
  const all = ["--parallel", "--parallel-immediate", "--parallel-max", "100", "-s"];
  const words = [
    ...all,
    "--unix-socket",
    controlPath(socket),
    "-w",
    "%{http_code} %{num_connects}\n",
  ];
  const asked = run("curl", [...words, ...urls]);
  await flows();
  const { out, status } = await asked;
  assert.equal(status, 0);
  const lines = out.split("\n").filter((line) => /^\d+ \d+$/.test(line));
  assert.equal(lines.filter((line) => line.startsWith("200 ")).length, 100);
  assert.ok(lines.filter((line) => line.endsWith(" 1")).length >= 50, "clients of their own");
});

/** Clients that send 10,000 requests in all and read no answer. */
async function neverRead(): Promise<void> {
  const clients = Array.from({ length: 20 }, (_, n) => {
    const client = connect(controlPath(socket));
    client.on("error", () => {});
    client.pause();
    const target = n % 2 === 0 ? "/v1/nic" : "/v1/events";
    client.write(`GET ${target} HTTP/1.1\r\nhost: x\r\n\r\n`.repeat(500));
    return client;
  });
  await sleep(200);
  for (const client of clients) client.destroy();
}

// Node parses all that it has read at once, so what each request costs waits for the collector: the
// server gained 45 MB with 400,000 requests and stayed there. Kept, 100,000 would cost 250 MB.
test("clients that never read cost a bounded amount of memory, and packets flow on", async () => {
  const rss = () =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, "utf8"))?.[1]);
  const before = rss();
  for (let n = 0; n < ROUNDS; n++) await neverRead();
  await flows();
  assert.ok(rss() < before + MOST_KIB, `${before} kB, then ${rss()} kB`);
  assert.equal((await curl("/v1/nic")).code, 200);
});

test("curl hears of changes as they happen", async () => {
  const words = ["-s", "-N", "--unix-socket", controlPath(socket), "http://nic/v1/events"];
  const listener = spawn("curl", words, { stdio: ["ignore", "pipe", "ignore"] });
  let heard = "";
  listener.stdout.on("data", (chunk) => {
    heard += chunk;
  });
  try {
    await until("the stream", () => heard.includes(":\n"));
    assert.equal((await curl("/v1/nic", "-X", "PATCH", "-d", '{"mtu":1250}')).code, 200);
    await until("the change", () =>
      /event: changed\nid: \d+\ndata: {"nic":"vm1",.*1250/.test(heard),
    );
    assert.match(heard, /event: log\nid: \d+\ndata: {"nic":"vm1","level":"info","text":"mtu: /);
  } finally {
    listener.kill();
  }
  await flows();
});

const needsRoot = process.getuid?.() === 0 ? false : "only root can become another user";
test("curl of another user is refused when the socket's mode was widened later", {
  skip: needsRoot,
}, async () => {
  chmodSync(folder, 0o755);
  chmodSync(controlPath(socket), 0o666);
  try {
    const words = ["-s", "--unix-socket", controlPath(socket), "http://nic/v1/nic"];
    const { out } = await run("curl", words, { uid: 65534, gid: 65534 });
    assert.match(
      out,
      /^{"error":"this user may not use this control socket: see --socket-group"}\n$/,
    );
    assert.equal((await curl("/v1/nic")).code, 200);
  } finally {
    chmodSync(controlPath(socket), 0o600);
  }
});
