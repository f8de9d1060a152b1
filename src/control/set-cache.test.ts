/** Sets that were proved before are used again only if nothing that they depend on has changed. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { after, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { programSets } from "../devices/program-set.ts";
import { findFormat } from "../devices/registry.ts";
import { readSets, setKey, TOOLCHAIN, writeSets } from "./set-cache.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), "bpfhv-sets-"));
after(() => rmSync(temporary, { recursive: true, force: true }));

const folder = join(temporary, "sets");
beforeEach(() => rmSync(folder, { recursive: true, force: true }));

const sizes = { rxBufs: 256, txBufs: 256 };
const key = setKey("sring", sizes)!;
const sets = programSets(findFormat("sring")!, sizes);

test("sets are read back as they were written", () => {
  assert.equal(readSets(key, folder), undefined);
  writeSets(key, sets, folder);
  assert.deepEqual(readSets(key, folder), sets);
  assert.deepEqual(readdirSync(folder), [key]);
});

test("file is not used when a byte of it is changed, missing or too much", () => {
  writeSets(key, sets, folder);
  const whole = readFileSync(join(folder, key));
  for (let at = 0; at < whole.length; at++) {
    // The generation is of no use here: nothing reads it.
    const changed = Buffer.from(whole);
    changed[at] ^= 1 << (at % 8);
    writeFileSync(join(folder, key), changed);
    const read = readSets(key, folder);
    if (read !== undefined) assert.deepEqual(read, sets, `byte ${at}`);
  }
  for (const wrong of [Buffer.alloc(0), whole.subarray(1), whole.subarray(0, -1)]) {
    writeFileSync(join(folder, key), wrong);
    assert.equal(readSets(key, folder), undefined);
  }
  writeFileSync(join(folder, key), Buffer.concat([whole, Buffer.of(0)]));
  assert.equal(readSets(key, folder), undefined);
});

test("folder or file is not used when another account could have written it", (t) => {
  writeSets(key, sets, folder);
  chmodSync(folder, 0o770);
  assert.equal(readSets(key, folder), undefined);
  writeSets("b".repeat(64), sets, folder);
  assert.deepEqual(readdirSync(folder), [key]);
  chmodSync(folder, 0o700);
  assert.notEqual(readSets(key, folder), undefined);

  renameSync(join(folder, key), join(temporary, "elsewhere"));
  symlinkSync(join(temporary, "elsewhere"), join(folder, key));
  assert.equal(readSets(key, folder), undefined);
  rmSync(join(folder, key));
  renameSync(folder, `${folder}.real`);
  symlinkSync(`${folder}.real`, folder);
  writeSets(key, sets, folder);
  assert.deepEqual(readdirSync(`${folder}.real`), []);
  rmSync(`${folder}.real`, { recursive: true });

  if (process.geteuid?.() !== 0) return t.diagnostic("owners are not tried: only root can");
  rmSync(folder);
  writeSets(key, sets, folder);
  chownSync(join(folder, key), 65534, 65534);
  assert.equal(readSets(key, folder), undefined);
  chownSync(join(folder, key), 0, 0);
  chownSync(folder, 65534, 65534);
  assert.equal(readSets(key, folder), undefined);
});

test("cache leaves nothing behind and fails nothing when it cannot be written", () => {
  writeFileSync(folder, "");
  writeSets(key, sets, folder);
  assert.equal(readFileSync(folder, "utf8"), "");
});

test("number of files is bounded", () => {
  for (let n = 0; n < 150; n++) writeSets(`${n}`.padStart(64, "0"), sets, folder);
  const names = readdirSync(folder);
  assert.ok(names.length <= 64, `${names.length}`);
  assert.ok(names.includes("149".padStart(64, "0")));
});

test("key tells formats and sizes apart, and formats from outside have none", () => {
  const keys = [
    setKey("sring", sizes),
    setKey("sring_gso", sizes),
    setKey("sring", { rxBufs: 128, txBufs: 256 }),
    setKey("sring", { rxBufs: 256, txBufs: 128 }),
  ];
  assert.equal(new Set(keys).size, 4);
  for (const each of keys) assert.match(each!, /^[0-9a-f]{64}$/);
  assert.equal(setKey("data:text/javascript,1", sizes), undefined);
});

/** The key that a copy of the package gives. */
async function keyIn(copy: string): Promise<string> {
  const url = JSON.stringify(join(copy, "dist/src/control/set-cache.js"));
  const words = `import(${url}).then((m) => console.log(m.setKey("sring", ${JSON.stringify(sizes)})))`;
  const child = spawn(process.execPath, ["-e", words], { stdio: ["ignore", "pipe", "inherit"] });
  const text = await child.stdout.toArray();
  return Buffer.concat(text).toString().trim();
}

test("key changes when any module of the toolchain or of a guest program changes", async () => {
  const copy = join(temporary, "copy");
  for (const path of ["dist/src", "src", "package.json"]) {
    const isWanted = (name: string) => !/\.(test\.js|d\.ts|map)$/.test(name);
    cpSync(join(root, path), join(copy, path), { recursive: true, filter: isWanted });
  }
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  assert.equal(await keyIn(copy), key);
  const touched = ["dist/src/compiler/fold.js", "dist/src/ebpf/verifier/alu.js"];
  touched.push("src/devices/sring/guest.ts", "src/abi/registers.ts", "package.json");
  const seen = new Set([key]);
  for (const path of touched) {
    writeFileSync(join(copy, path), `${readFileSync(join(copy, path), "utf8")}\n`);
    seen.add(await keyIn(copy));
  }
  assert.equal(seen.size, touched.length + 1);
});

test("all modules that make and prove sets are in the rooms that the key covers", () => {
  const seen = new Set<string>();
  const follow = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    const text = readFileSync(path, "utf8");
    for (const [, to] of text.matchAll(/^(?:import|export)\b[^;]*?\bfrom "(\.[^"]+)"/gm)) {
      follow(resolve(dirname(path), to));
    }
  };
  for (const path of ["devices/program-set.js", "devices/proof.js", "devices/registry.js"]) {
    follow(join(root, "dist/src", path));
  }
  const rooms = new Set(
    [...seen].map((path) => relative(join(root, "dist/src"), path).split("/")[0]),
  );
  assert.ok(seen.size > 60, `${seen.size} modules`);
  // A ring's host half loads system calls, which have no say in its programs.
  const others = [...rooms].filter((room) => !TOOLCHAIN.includes(room as "abi"));
  assert.deepEqual(others, ["os"]);
});

/** Starts a NIC; returns whether it loaded the compiler's parser. */
async function loadsCompiler(cache: string): Promise<boolean> {
  const socket = join(temporary, "nic.sock");
  const words = ["dist/src/cli/main.js", "serve", "--socket", socket, "--net", "sink"];
  const child = spawn(process.execPath, words, {
    cwd: root,
    env: { ...process.env, BPFHV_CACHE: cache },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let text = "";
  for await (const chunk of child.stderr) {
    text += chunk;
    if (text.includes("waiting for QEMU")) break;
  }
  const maps = readFileSync(`/proc/${child.pid}/maps`, "utf8");
  child.kill();
  await once(child, "exit");
  assert.match(text, /waiting for QEMU/);
  return maps.includes("oxc-parser");
}

test("second start of a NIC loads no compiler, until its file is damaged", async () => {
  const cache = join(temporary, "cache");
  mkdirSync(cache);
  assert.deepEqual([await loadsCompiler(cache), await loadsCompiler(cache)], [true, false]);
  const [name] = readdirSync(join(cache, "sets"));
  const bytes = readFileSync(join(cache, "sets", name));
  bytes[bytes.length - 1] ^= 1;
  writeFileSync(join(cache, "sets", name), bytes);
  assert.deepEqual([await loadsCompiler(cache), await loadsCompiler(cache)], [true, false]);
});
