/** `--socket-group` and `--socket-mode`: who may connect to a NIC's sockets. */
import { readFileSync } from "node:fs";
import { Usage } from "../errors.ts";
import type { SocketAccess } from "../os/unix-socket.ts";

export const SOCKET_GROUP = "group of the sockets, by name or number (default: the server's)";
export const SOCKET_MODE = "permissions of the sockets: 0600, or 0660 for the group, too";
/** Without read and write for their owner no process could use them; execution means nothing. */
const MODE = /^0?6[0246][0246]$/;
const MAX_ID = 2 ** 32 - 2;

export interface AccessFlags {
  readonly socketGroup?: string;
  readonly socketMode?: string;
}

/**
 * @param uid who the server becomes: the sockets are that user's
 * @throws Usage
 */
export function socketAccess({ socketGroup, socketMode }: AccessFlags, uid?: number): SocketAccess {
  if (socketMode !== undefined && !MODE.test(socketMode)) {
    throw new Usage(`--socket-mode ${socketMode}: use 0600, 0660 or 0666`);
  }
  return {
    ...(uid === undefined ? {} : { uid }),
    ...(socketGroup === undefined ? {} : { gid: groupId(socketGroup) }),
    // A group that is named, but may not connect, is not what was meant.
    mode: socketMode !== undefined ? Number.parseInt(socketMode, 8) : socketGroup ? 0o660 : 0o600,
  };
}

function groupId(name: string): number {
  if (/^\d{1,10}$/.test(name) && Number(name) <= MAX_ID) return Number(name);
  const line = readFileSync("/etc/group", "utf8")
    .split("\n")
    .map((each) => each.split(":"))
    .find((fields) => fields[0] === name);
  if (line === undefined) throw new Usage(`--socket-group ${name}: there is no such group`);
  return Number(line[2]);
}
