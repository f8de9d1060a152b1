/** A NIC from outside the tree, in a project that has installed the packed package. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { statusOf } from "../../src/control/client.ts";
import { GuestDriver } from "../../src/guest/driver.ts";
import { LocalMemory } from "../../src/guest/memory.ts";
import { VfioUserClient } from "../../src/guest/vfio-user-client.ts";
import type { NicStatus } from "../../src/nic/status.ts";
import { FULL, frameOf, numberOf } from "../support/guest.ts";
import { until } from "../support/os.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const project = mkdtempSync(join(tmpdir(), "bpfhv-outside-"));
const MAIN = join(project, "node_modules/bpfhv/dist/src/cli/main.js");
const NIC = "./my-nic.ts";
/** Started by a test that failed before it ended them. */
const started = new Set<ChildProcess>();

function tool(command: string, ...words: string[]) {
  const { status, stdout, stderr } = spawnSync(command, words, {
    ...{ cwd: project, encoding: "utf8", timeout: 120_000 },
  });
  return { status, stdout, stderr };
}

const bpfhv = (...words: string[]) => tool(process.execPath, MAIN, ...words);

/** What `npm install` of the tarball makes, without a network. */
before(() => {
  const pack = spawnSync("npm", ["pack", "--ignore-scripts", "--pack-destination", project], {
    ...{ cwd: ROOT, encoding: "utf8", timeout: 120_000 },
  });
  assert.equal(pack.status, 0, pack.stderr);
  const tarball = readdirSync(project).find((name) => name.endsWith(".tgz"))!;
  const modules = join(project, "node_modules");
  mkdirSync(join(modules, "bpfhv"), { recursive: true });
  const into = ["-C", join(modules, "bpfhv"), "--strip-components=1"];
  assert.equal(tool("tar", "xzf", tarball, ...into).status, 0);
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
    dependencies: Record<string, string>;
  };
  for (const name of [...Object.keys(manifest.dependencies), "@types/node"]) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(ROOT, "node_modules", name), join(modules, name));
  }
  writeFileSync(join(project, "package.json"), '{ "type": "module" }');
  copyFileSync(join(ROOT, "examples/mini-ring.ts"), join(project, NIC));
});

after(() => {
  for (const child of started) child.kill("SIGKILL");
  rmSync(project, { recursive: true, force: true });
});

for (const [resolution, module] of [
  ["nodenext", "nodenext"],
  ["bundler", "esnext"],
]) {
  test(`types of the package are found and checked under ${resolution} resolution`, () => {
    const compilerOptions = {
      ...{ strict: true, noEmit: true, target: "es2023", lib: ["es2023"], types: ["node"] },
      ...{ module, moduleResolution: resolution },
    };
    const check = (...files: string[]) => {
      writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
      return tool(join(ROOT, "node_modules/.bin/tsc"), "-p", "tsconfig.json");
    };
    const { status, stdout } = check(NIC);
    assert.equal(status, 0, stdout);
    const text = readFileSync(join(project, NIC), "utf8");
    writeFileSync(join(project, "wrong.ts"), text.replace("privateSize: (bufs)", "size: (bufs)"));
    assert.match(check("wrong.ts").stdout, /'size' does not exist in type 'NicDefinition'/);
  });
}

test("new writes a project whose types are right, and whose tests pass", () => {
  const made = bpfhv("new", "first-nic");
  assert.equal(made.status, 0, made.stderr);
  assert.match(made.stdout, /cd first-nic\n {2}npx bpfhv dev first-nic\.ts/);
  const folder = join(project, "first-nic");
  const { scripts, dependencies } = JSON.parse(
    readFileSync(join(folder, "package.json"), "utf8"),
  ) as { scripts: { test: string }; dependencies: { bpfhv: string } };
  assert.match(dependencies.bpfhv, /^\^\d/);
  // As npm installs commands and its shell would find them.
  const bin = join(project, "bin");
  mkdirSync(bin);
  chmodSync(MAIN, 0o755);
  symlinkSync(MAIN, join(bin, "bpfhv"));
  symlinkSync(join(ROOT, "node_modules/.bin/tsc"), join(bin, "tsc"));
  const { status, stdout, stderr } = spawnSync(
    "sh",
    ["-c", `${scripts.test} --bufs 16 ${FULL ? "" : "--only rings"}`],
    {
      ...{ cwd: folder, encoding: "utf8", timeout: 120_000 },
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}`, NODE_TEST_CONTEXT: undefined },
    },
  );
  assert.equal(status, 0, stdout + stderr);
  assert.match(stdout, /^# pass 2$/m);
  assert.match(stdout, /^first_nic: \d+ passed, 0 failed$/m);
  const before = readFileSync(join(folder, "first-nic.ts"), "utf8");
  const again = bpfhv("new", "first-nic");
  assert.equal(again.status, 1);
  assert.match(again.stderr, /holds .* already: give a folder that is new or empty/);
  assert.equal(readFileSync(join(folder, "first-nic.ts"), "utf8"), before);
  for (const name of ["My_NIC", "9", "x".repeat(32)]) assert.equal(bpfhv("new", name).status, 2);
});

test("verify, compile and test take the path of its module", () => {
  const verified = bpfhv("verify", "--device", NIC);
  assert.equal(verified.status, 0, verified.stderr);
  assert.match(verified.stdout, /8 accepted, 0 refused/);
  const compiled = bpfhv("compile", "--device", NIC, "--bufs", "16", "--json");
  assert.equal(compiled.status, 0, compiled.stderr);
  const rows = JSON.parse(compiled.stdout) as { name: string; lines: { file: string }[] }[];
  assert.equal(rows.length, 8);
  assert.ok(rows.every(({ lines }) => lines[0].file.endsWith("/my-nic.ts")));
  const tested = bpfhv("test", NIC, "--bufs", "16", "--only", "rings", "--json");
  assert.equal(tested.status, 0, tested.stderr);
  const { device, passed, failed } = JSON.parse(tested.stdout);
  assert.deepEqual([device, failed], ["mini_ring", 0]);
  assert.ok(passed > 15, `${passed} passed`);
});

test("test exits with 1 and names the checks that fail", () => {
  const text = readFileSync(join(project, NIC), "utf8");
  const wrong = text.replace("buffer.cookie = slot.cookie;", "");
  assert.notEqual(wrong, text);
  writeFileSync(join(project, "careless.ts"), wrong);
  const { status, stdout, stderr } = bpfhv(
    "test",
    "careless.ts",
    "--bufs",
    "16",
    "--only",
    "rings",
  );
  assert.equal(status, 1);
  assert.match(stdout, /^FAIL helperfree rings: packets keep order, .*\n {5}\S/m);
  assert.match(stdout, /^mini_ring: \d+ passed, [1-9]\d* failed$/m);
  assert.match(stderr, /^bpfhv: \d+ checks failed, the first: \w+/);
  assert.equal(bpfhv("test", NIC, "--only", "no such check").status, 1);
});

test("test fails a check that hangs when its time limit is over, and runs the rest", () => {
  const text = readFileSync(join(project, NIC), "utf8");
  const tx = "tx: (ring) =>";
  // The first ring only, so that other checks pass.
  const hung = text.replace(tx, `${tx} hangOnce() ?? `).concat(`
function hangOnce(): undefined {
  const all = globalThis as { hung?: boolean };
  if (all.hung) return undefined;
  all.hung = true;
  for (;;);
}
`);
  assert.ok(hung.includes(`${tx} hangOnce()`));
  writeFileSync(join(project, "hung.ts"), hung);
  const words = [
    "--bufs",
    "16",
    "--runs",
    "1",
    "--only",
    "rings",
    "--check-timeout",
    "8",
    "--json",
  ];
  const { status, stdout, stderr } = bpfhv("test", "hung.ts", ...words);
  assert.equal(status, 1, stderr);
  const { passed, results } = JSON.parse(stdout) as {
    passed: number;
    results: { name: string; error: string | null }[];
  };
  const failed = results.filter(({ error }) => error !== null);
  assert.deepEqual(
    failed.map(({ error }) => error),
    ["did not end within 8 s (--check-timeout)"],
  );
  assert.ok(passed > 15, `${passed} passed`);
  assert.ok(stderr.includes(`1 checks failed, the first: ${failed[0].name}`), stderr);
  assert.equal(bpfhv("test", NIC, "--check-timeout", "0").status, 2);
});

test("drive passes packets through a backend of its own that serves it", () => {
  const { status, stdout, stderr } = bpfhv("drive", "--device", NIC, "--duration", "0.3", "--json");
  assert.equal(status, 0, stderr);
  const { sent, received, wrong, outOfOrder } = JSON.parse(stdout);
  assert.ok(sent > 10 && received === sent, `${sent} sent, ${received} received`);
  assert.deepEqual([wrong, outOfOrder], [0, 0]);
});

test("serve passes packets to and from a guest driver in another process", async () => {
  const socket = join(project, "nic.sock");
  const words = [MAIN, "serve", "--device", NIC, "--socket", socket, "--net", "loopback"];
  const server = spawn(process.execPath, words, { cwd: project, stdio: "ignore" });
  started.add(server);
  const status = () => statusOf(socket) as Promise<NicStatus>;
  await until("the server's reply", () => status().catch(() => null));
  const memory = new LocalMemory(16 << 20);
  const client = new VfioUserClient(socket, memory, 3);
  const driver = new GuestDriver(client, memory);
  driver.open();
  const got: number[] = [];
  let sent = 0;
  await until("the packets", () => {
    if (sent < 300 && driver.send(0, frameOf(sent))) sent++;
    driver.clean(0);
    driver.receive(0, (frame) => got.push(numberOf(frame)));
    return got.length === 300;
  });
  assert.deepEqual(got, [...Array(300).keys()]);
  const { device, programs } = await status();
  assert.deepEqual([device, programs], ["mini_ring", "verified"]);
  client.close();
  memory.close();
  const ended = new Promise((resolve) => server.once("exit", resolve));
  server.kill("SIGTERM");
  assert.equal(await ended, 0);
  started.delete(server);
});
