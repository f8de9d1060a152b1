/**
 * Program sets of built-in ring formats that were compiled and proved before, by content: whoever
 * starts a NIC again loads neither compiler nor verifier. The key is a hash of everything that the
 * sets are made from and by; each set is a program blob with a hash of its own. A folder or file
 * that another user could have written is not used, and a cache that cannot be used fails nothing:
 * the sets are made anew.
 */
import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildBlob, parseBlob, programSetProblem } from "../abi/index.ts";
import type { ProgramSets, QueueSizes } from "../devices/program-set.ts";
import { findFormat } from "../devices/registry.ts";
import { cacheFolder } from "../os/cache-folder.ts";

/** Rooms whose modules decide what a set is, and whether it is proved. */
export const TOOLCHAIN = ["abi", "compiler", "devices", "ebpf", "memory"] as const;
/** Rooms whose text is compiled to guest programs. */
const SOURCES = ["abi", "devices"] as const;

const root = fileURLToPath(new URL("../../../", import.meta.url));
const FORMS = ["helperfree", "v1"] as const;

const MAX_FILES = 64;
/** More than any pair of sets has. */
const MAX_BYTES = 4 << 20;

let toolchain: string | undefined;

/** @returns undefined for what is not built in: its modules may be anywhere */
export function setKey(format: string, { rxBufs, txBufs }: QueueSizes): string | undefined {
  if (findFormat(format) === undefined) return undefined;
  toolchain ??= toolchainHash();
  return sha256(JSON.stringify([toolchain, format, rxBufs, txBufs]));
}

/** Of the files themselves, compiled and as source: times and versions say less. */
function toolchainHash(): string {
  const hash = createHash("sha256").update(process.version);
  const add = (path: string): void => {
    hash.update(path).update(readFileSync(join(root, path)));
  };
  add("package.json");
  // The parser's version: the range in package.json does not decide it.
  hash.update(readFileSync(new URL("../package.json", import.meta.resolve("oxc-parser"))));
  for (const room of TOOLCHAIN) for (const path of modulesOf(`dist/src/${room}`, ".js")) add(path);
  for (const room of SOURCES) for (const path of modulesOf(`src/${room}`, ".ts")) add(path);
  return hash.digest("hex");
}

function modulesOf(room: string, ending: ".js" | ".ts"): string[] {
  const names = readdirSync(join(root, room), { recursive: true, encoding: "utf8" });
  const isModule = (name: string) => name.endsWith(ending) && !/\.(test|d)\.[jt]s$/.test(name);
  return names
    .filter(isModule)
    .sort()
    .map((name) => `${room}/${name}`);
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/** @returns undefined if they are not there, or damaged, or may be somebody else's */
export function readSets(key: string, folder = setFolder()): ProgramSets | undefined {
  try {
    if (!isOurs(folder)) return undefined;
    return decode(readOurs(join(folder, key)));
  } catch {
    return undefined;
  }
}

/** Keeps sets that are proved. */
export function writeSets(key: string, sets: ProgramSets, folder = setFolder()): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (!isOurs(folder)) return;
    prune(folder);
    replace(join(folder, key), encode(sets));
  } catch {
    // A full or read-only disk costs the next start its time.
  }
}

/** Readers see the whole file or none. */
function replace(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.${process.pid}`;
  try {
    writeFileSync(temporary, bytes, { mode: 0o600, flag: "wx" });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

const setFolder = (): string => join(cacheFolder(), "sets");

/** True if no other account can have written there. */
function isOurs(folder: string): boolean {
  const { uid, mode } = lstatSync(folder);
  const isFolder = (mode & constants.S_IFMT) === constants.S_IFDIR;
  return isFolder && uid === process.geteuid?.() && (mode & 0o077) === 0;
}

function readOurs(path: string): Uint8Array {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const { uid, size } = fstatSync(fd);
    if (uid !== process.geteuid?.() || size > MAX_BYTES) throw new Error(path);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** The blobs of all forms, each with its length. */
function encode(sets: ProgramSets): Uint8Array {
  return Buffer.concat(
    FORMS.flatMap((form) => {
      const blob = buildBlob(sets[form], 0);
      return [new Uint8Array(Uint32Array.of(blob.length).buffer), blob];
    }),
  );
}

function decode(bytes: Uint8Array): ProgramSets | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const sets: Partial<Record<(typeof FORMS)[number], ProgramSets["v1"]>> = {};
  let at = 0;
  for (const form of FORMS) {
    const length = view.getUint32(at, true);
    if (at + 4 + length > bytes.length) return undefined;
    const code = parseBlob(bytes.subarray(at + 4, at + 4 + length));
    if (code === undefined || programSetProblem({ form, code }) !== null) return undefined;
    sets[form] = { form, code };
    at += 4 + length;
  }
  return at === bytes.length ? (sets as ProgramSets) : undefined;
}

/** Keeps the newest. */
function prune(folder: string): void {
  const names = readdirSync(folder);
  if (names.length < MAX_FILES) return;
  const aged = names.map((name) => ({ name, time: lstatSync(join(folder, name)).mtimeMs }));
  aged.sort((a, b) => b.time - a.time);
  for (const { name } of aged.slice(MAX_FILES / 2)) rmSync(join(folder, name), { force: true });
}
