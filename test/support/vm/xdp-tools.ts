/** The programs of Debian's package xdp-tools, of this machine, for a guest. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";

const PROGRAMS = ["/usr/sbin/xdp-filter", "/usr/sbin/xdp-bench"];
/** Their BPF objects, which they look for here. */
const OBJECTS = "/usr/lib/x86_64-linux-gnu/bpf";
/** A folder of the guest: its own libraries may be of another version. */
const FOLDER = "/xdp-tools";

/** Starts one of them in a guest: `${XDP_TOOLS} xdp-filter …`. */
export const XDP_TOOLS = `${FOLDER}/run`;
/** What they need of the guest first. */
export const MOUNT_BPF = "mount -t bpf bpf /sys/fs/bpf";

/** For `test(…, { skip })`: false if they are here, else why not. */
export function withoutXdpTools(): string | false {
  const missing = PROGRAMS.find((program) => !existsSync(program));
  return missing !== undefined && `needs ${basename(missing)} (package xdp-tools)`;
}

/**
 * Returns the guest's files: programs, libraries, objects, and what starts them. Each is this
 * machine's file of that path, or bytes.
 */
export function xdpTools(): Record<string, string | Uint8Array> {
  if (withoutXdpTools() !== false) return {};
  const files: Record<string, string | Uint8Array> = {};
  let loader = "";
  for (const program of PROGRAMS) {
    files[join(FOLDER, basename(program))] = program;
    for (const [library] of execFileSync("ldd", [program]).toString().matchAll(/\/\S+/g)) {
      files[join(FOLDER, basename(library))] = library;
      if (basename(library).startsWith("ld-linux")) loader = basename(library);
    }
  }
  for (const name of readdirSync(OBJECTS)) {
    files[join(OBJECTS, name)] = join(OBJECTS, name);
  }
  const start = `exec ${FOLDER}/${loader} --library-path ${FOLDER} ${FOLDER}/"$name" "$@"`;
  files[XDP_TOOLS] = Buffer.from(`#!/bin/sh\nname=$1\nshift\n${start}\n`);
  return files;
}
