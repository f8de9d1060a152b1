/**
 * Our devices with programs that clang compiled from the C files in this folder, for the same ring
 * sizes. `BPFHV_CREATE=1 node --test dist/test/unit/clang.test.js` made the objects in `objects/`
 * with the flags below and Debian's clang 19.1.7, so that tests run without clang. If clang is
 * installed, tests build them again.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  FEATURES,
  PROGRAM_IDS,
  type ProgramForm,
  type ProgramName,
  type ProgramSet,
} from "../../src/abi/index.ts";
import type { RingFormat } from "../../src/devices/format.ts";
import { FORMATS } from "../../src/devices/registry.ts";
import { sringGso } from "../../src/devices/sring_gso/host.ts";
import { readElf } from "../../src/ebpf/elf-reader.ts";

const FOLDER = fileURLToPath(new URL("../../../bench/clang/", import.meta.url));
const FLAGS = ["-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"];
/** Ring sizes with objects. */
export const CLANG_SIZES = [16, 64, 256, 8192] as const;

export const objectPath = (device: string, bufs: number): string =>
  join(FOLDER, "objects", `${device}-${bufs}.o`);

/** Returns this machine's clang and its version; undefined if none compiles to eBPF. */
export function findClang(): { readonly tool: string; readonly version: string } | undefined {
  for (const tool of ["clang-19", "clang"]) {
    const { status, stdout } = spawnSync(tool, ["-print-targets"], { encoding: "utf8" });
    if (status !== 0 || !/\bbpf\b/.test(stdout)) continue;
    const version = execFileSync(tool, ["--version"], { encoding: "utf8" }).split("\n")[0]!;
    return { tool, version };
  }
  return undefined;
}

interface OriginalShape {
  readonly flags: readonly string[];
  readonly features: number;
}

/**
 * sring_gso like the original's programs: helpers transfer the packet's metadata, with pointers to
 * the stack. The second is the reduced variant, with checksums only.
 */
const ORIGINAL_SHAPES: Readonly<Record<string, OriginalShape>> = {
  sring_gso_v1: { flags: ["-DV1"], features: sringGso.features },
  sring_gso_v1_csum: {
    flags: ["-DV1", "-DCSUM_ONLY"],
    features: FEATURES.SG | FEATURES.TX_CSUM | FEATURES.RX_CSUM,
  },
};

/** Compiles a device's programs with clang to an object. */
export function buildObject(tool: string, device: string, bufs: number): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-clang-"));
  try {
    const object = join(folder, "programs.o");
    const shape = ORIGINAL_SHAPES[device]?.flags ?? [];
    const source = join(FOLDER, `${device.replace(/_v1.*/, "")}.c`);
    execFileSync(tool, [...FLAGS, ...shape, `-DBUFS=${bufs}`, "-c", source, "-o", object]);
    return readFileSync(object);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** @throws EbpfError if it is not an object with programs */
export function programSet(object: Uint8Array, form: ProgramForm = "helperfree"): ProgramSet {
  const programs = readElf(object);
  const code = new Map(programs.map((p) => [PROGRAM_IDS[p.name as ProgramName], p.code]));
  return { form, code };
}

const hasSource = ({ name }: RingFormat): boolean => existsSync(join(FOLDER, `${name}.c`));

/** Our devices with a C file here, with the objects' programs in place of ours. */
export const CLANG_DEVICES: readonly RingFormat[] = FORMATS.filter(hasSource).map((device) => ({
  ...device,
  programs: ({ bufs }) => programSet(readFileSync(objectPath(device.name, bufs))),
}));

/** sring_gso with version 1 programs like the original's. */
export const ORIGINAL_SHAPE_DEVICES: readonly RingFormat[] = Object.entries(ORIGINAL_SHAPES).map(
  ([name, { features }]) => ({
    ...{ ...sringGso, name, features },
    programs: ({ bufs }) => programSet(readFileSync(objectPath(name, bufs)), "v1"),
  }),
);
/** Ring sizes of those with objects. */
export const ORIGINAL_SHAPE_SIZES = [16, 64, 256] as const;
