/**
 * Our devices with programs that clang made: of the C beside this file, for the same ring sizes. The objects in
 * `objects/` were made by `BPFHV_CREATE=1 node --test dist/test/unit/clang.test.js` with the flags below and Debian's
 * clang 19.1.7, so that tests run where there is no clang; tests build them again where there is one.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PROGRAM_IDS, type ProgramName, type ProgramSet } from "../../src/abi/index.ts";
import type { Device } from "../../src/devices/device.ts";
import { DEVICES } from "../../src/devices/index.ts";
import { readElf } from "../../src/ebpf/elf-reader.ts";

const FOLDER = fileURLToPath(new URL("../../../bench/clang/", import.meta.url));
const FLAGS = ["-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"];
/** Sizes of which there are objects. */
export const CLANG_SIZES = [16, 64, 256, 8192] as const;

export const objectPath = (device: string, bufs: number): string =>
  join(FOLDER, "objects", `${device}-${bufs}.o`);

/** The clang of this machine and its version; undefined where there is none that makes eBPF. */
export function findClang(): { readonly tool: string; readonly version: string } | undefined {
  for (const tool of ["clang-19", "clang"]) {
    const { status, stdout } = spawnSync(tool, ["-print-targets"], { encoding: "utf8" });
    if (status !== 0 || !/\bbpf\b/.test(stdout)) continue;
    const version = execFileSync(tool, ["--version"], { encoding: "utf8" }).split("\n")[0]!;
    return { tool, version };
  }
  return undefined;
}

/** The object that clang makes of a device's programs. */
export function buildObject(tool: string, device: string, bufs: number): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-clang-"));
  try {
    const object = join(folder, "programs.o");
    const source = join(FOLDER, `${device}.c`);
    execFileSync(tool, [...FLAGS, `-DBUFS=${bufs}`, "-c", source, "-o", object]);
    return readFileSync(object);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** @throws EbpfError for what is no object of programs */
export function programSet(object: Uint8Array): ProgramSet {
  const programs = readElf(object);
  const code = new Map(programs.map((p) => [PROGRAM_IDS[p.name as ProgramName], p.code]));
  return { form: "helperfree", code };
}

const hasSource = ({ name }: Device): boolean => existsSync(join(FOLDER, `${name}.c`));

/** Our devices that have a C file here, with the objects' programs in place of ours. */
export const CLANG_DEVICES: readonly Device[] = DEVICES.filter(hasSource).map((device) => ({
  ...device,
  programs: ({ bufs }) => programSet(readFileSync(objectPath(device.name, bufs))),
}));
