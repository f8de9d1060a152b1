/**
 * The parts of a VM, prepared once in the user's cache folder: QEMU, a
 * guest kernel, an initramfs, the module.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { failure } from "../errors.ts";
import { type InitramfsFile, packInitramfs } from "./initramfs.ts";

export interface GuestParts {
  /** Folder of the parts, in the cache. */
  readonly folder: string;
  /** A QEMU of at least 10.1 that has vfio-user-pci. */
  readonly qemu: string;
  readonly iperf3: string;
  readonly ping: string;
  readonly kernel: string;
  /** What QEMU starts: the kernel unpacked, if it can, which saves an emulated guest a second. */
  readonly bootKernel: string;
  /** Uncompressed cpio: another archive may follow it. */
  readonly initrd: string;
  /** The kernel's release, as of `uname -r`. */
  readonly release: string;
}

export interface Prepare {
  /** Fail if something is missing, instead of downloading or building it. */
  readonly onlyPrepared?: boolean;
}

/** A first preparation downloads a few hundred megabytes. */
const PREPARE_MS = 45 * 60_000;
const BUILD_MS = 10 * 60_000;
const KEEP_MS = 24 * 3600_000;

/**
 * Prepares missing parts, with progress on standard error.
 * @throws CommandError that says what to do
 */
export async function prepareGuest(suite = "trixie", options?: Prepare): Promise<GuestParts> {
  const folder = await runScript("provision", ["--kernel", suite], PREPARE_MS, options);
  const [kernel, unpacked] = [join(folder, "vmlinuz"), join(folder, "vmlinux")];
  return {
    folder,
    qemu: join(folder, "bin/qemu-system-x86_64"),
    iperf3: join(folder, "bin/iperf3"),
    ping: join(folder, "bin/ping"),
    kernel,
    bootKernel: existsSync(unpacked) ? unpacked : kernel,
    initrd: join(folder, "initrd.img"),
    release: readFileSync(join(folder, "release"), "utf8").trim(),
  };
}

/** Builds a kernel module for that guest if necessary; returns the paths of its .ko files. */
export async function buildModule(
  source?: string,
  suite = "trixie",
  options?: Prepare,
): Promise<string[]> {
  const words = ["--kernel", suite, ...(source === undefined ? [] : [source])];
  const folder = await runScript("build-module", words, BUILD_MS + PREPARE_MS, options);
  return readdirSync(folder)
    .filter((name) => name.endsWith(".ko"))
    .map((name) => join(folder, name));
}

/**
 * Writes the guest's initramfs with files added, once. It is named by its content and stored beside
 * the parts, so that it outlives the caller. @returns its path
 */
export function composeInitrd(parts: GuestParts, files: readonly InitramfsFile[]): string {
  if (files.length === 0) return parts.initrd;
  const added = packInitramfs(files);
  const key = createHash("sha256").update(added).digest("hex").slice(0, 12);
  const path = join(parts.folder, `initrd-${key}.img`);
  if (!existsSync(path)) {
    removeOldInitrds(parts.folder);
    const partial = `${path}.${process.pid}`;
    writeFileSync(partial, Buffer.concat([readFileSync(parts.initrd), added]));
    renameSync(partial, path);
  }
  return path;
}

/** Removes those that are too old to be in use by a starting guest. */
function removeOldInitrds(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (!name.startsWith("initrd-")) continue;
    const path = join(folder, name);
    if (Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0) > KEEP_MS) {
      rmSync(path, { force: true });
    }
  }
}

/** Returns the files that make the guest's init load these modules, in order. */
export function moduleFiles(
  modules: readonly { readonly path: string; readonly parameters?: string }[],
): InitramfsFile[] {
  const names = modules.map(({ path }) => path.replace(/^.*\/|\.ko$/g, ""));
  const list = modules.map(({ parameters }, i) => `${names[i]} ${parameters ?? ""}`.trim());
  return [
    ...modules.map(({ path }, i) => ({
      path: `/extra/${names[i]}.ko`,
      content: readFileSync(path),
    })),
    { path: "/extra/modules.list", content: Buffer.from(`${list.join("\n")}\n`) },
  ];
}

/** Returns the folder of the checkout or installed package, which holds script/ and driver/. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "script/lib/provision"))) {
    const parent = dirname(folder);
    if (parent === folder) {
      throw failure("script/lib is missing: run bpfhv from a checkout or install it again");
    }
    folder = parent;
  }
  return folder;
}

/**
 * Runs a script of script/lib. Its last line of output is the result. The rest goes to our stderr.
 */
function runScript(
  name: string,
  words: readonly string[],
  timeoutMs: number,
  { onlyPrepared = false }: Prepare = {},
): Promise<string> {
  const { promise, resolve, reject } = deferred<string>();
  const child = spawn(join(packageRoot(), "script/lib", name), words, {
    stdio: ["ignore", "pipe", "pipe"],
    timeout: timeoutMs,
    env: { ...process.env, ...(onlyPrepared ? { BPFHV_PREPARED_ONLY: "1" } : {}) },
  });
  let output = "";
  let lastWords = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    // The script's error becomes this error's message below, and is not printed twice.
    process.stderr.write(`${chunk}`.replace(/^bpfhv: .*\n/gm, ""));
    lastWords = `${lastWords}${chunk}`.slice(-2000);
  });
  child.on("error", (error) => reject(failure(`script/lib/${name}: ${error.message}`)));
  child.on("close", (status) => {
    const line = output.trim().split("\n").at(-1) ?? "";
    if (status === 0 && line !== "") resolve(line);
    else reject(failure(reasonOf(lastWords) ?? `script/lib/${name} failed (${status})`));
  });
  const stop = () => child.kill("SIGTERM");
  process.once("exit", stop);
  return promise.finally(() => process.removeListener("exit", stop));
}

function reasonOf(lastWords: string): string | undefined {
  return /^bpfhv: (.*)$/m.exec(lastWords)?.[1];
}

function deferred<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
