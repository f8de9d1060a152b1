/** Finds a QEMU that can connect to vfio-user servers. */
import { spawnSync } from "node:child_process";
import { failure } from "../errors.ts";
import { MIGRATION_BLOCKER } from "./qemu-command.ts";

/** The first release with vfio-user-pci. */
export const MIN_QEMU = [10, 1] as const;
const PROBE_MS = 10_000;

/** Returns `program`'s problem in one line; undefined if it is new enough and has the device. */
export function qemuProblem(program: string): string | undefined {
  const { status, stdout, error } = run(program, "--version");
  if (error !== undefined || status !== 0) {
    const reason = (error as NodeJS.ErrnoException | undefined)?.code ?? `status ${status}`;
    return `cannot run ${program} (${reason})`;
  }
  const version = parseQemuVersion(stdout);
  if (version === undefined) return `${program} does not print a QEMU version`;
  if (isOlder(version, MIN_QEMU)) {
    return `${program} is QEMU ${version.join(".")}, and vfio-user needs ${MIN_QEMU.join(".")} or newer`;
  }
  const devices = run(program, "-device", "help");
  if (devices.stdout.includes('"vfio-user-pci"')) return undefined;
  return `${program} was built without vfio-user-pci`;
}

/** Returns true if it can be made to refuse live migration (`MIGRATION_BLOCKER`). */
export function canRefuseMigration(program: string): boolean {
  const [writable = ""] = run(program, "-drive", "format=help").stdout.split("\n");
  return writable.split(" ").includes(MIGRATION_BLOCKER.driver);
}

/** "QEMU emulator version 10.1.2 (…)" → [10, 1]. */
export function parseQemuVersion(text: string): [major: number, minor: number] | undefined {
  const match = /QEMU emulator version (\d+)\.(\d+)/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}

export function isOlder(a: readonly [number, number], b: readonly [number, number]): boolean {
  return a[0] !== b[0] ? a[0] < b[0] : a[1] < b[1];
}

/**
 * Returns `wanted` if given, else the system's QEMU; undefined if that is missing or too old.
 * @throws CommandError
 */
export function systemQemu(wanted: string | undefined): string | undefined {
  const program = wanted ?? "qemu-system-x86_64";
  const problem = qemuProblem(program);
  if (problem === undefined) return program;
  if (wanted === undefined) return undefined;
  throw failure(`${problem}: install a newer one, or leave --qemu out and one is prepared`);
}

function run(program: string, ...words: string[]) {
  return spawnSync(program, words, {
    encoding: "utf8",
    timeout: PROBE_MS,
    stdio: ["ignore", "pipe", "ignore"],
  });
}
