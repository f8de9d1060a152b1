/** What benches of `bpfhv serve` share. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

const VERSION = '{"capabilities": {"max_msg_fds": 16, "max_data_xfer_size": 1048576}}\0';

/** A client's first message: command 1, VERSION 0.0 (vfio-user protocol, "Version"). */
export const message = versionMessage();

function versionMessage(): Buffer {
  const payload = Buffer.concat([Buffer.alloc(4), Buffer.from(VERSION)]);
  const header = Buffer.alloc(16);
  header.writeUInt16LE(1, 0);
  header.writeUInt16LE(1, 2);
  header.writeUInt32LE(header.length + payload.length, 4);
  return Buffer.concat([header, payload]);
}

/** Resident MiB of a process, without the memory of guests, which is theirs. */
export function residentMiB(pid: number): number {
  let [kib, isGuests] = [0, false];
  for (const line of readFileSync(`/proc/${pid}/smaps`, "utf8").split("\n")) {
    if (/^[0-9a-f]+-/.test(line)) isGuests = line.includes("memfd:bpfhv-guest");
    const size = /^Rss: +(\d+) kB/.exec(line);
    if (size !== null && !isGuests) kib += Number(size[1]);
  }
  return kib / 1024;
}
