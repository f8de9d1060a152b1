/** The path of a NIC's socket, how long it may be, and that of its control socket. */
import { Usage } from "../errors.ts";

export const CONTROL_SUFFIX = ".ctl";

/** Where the API of the NIC on this socket listens. */
export const controlPath = (socketPath: string): string => `${socketPath}${CONTROL_SUFFIX}`;

/** sun_path holds 108 bytes with the NUL (unix(7)), and the control socket's path is longer. */
export const MAX_SOCKET_PATH = 107 - CONTROL_SUFFIX.length;

/** Node and the kernel cut longer ones off, or refuse them when half is done. @throws Usage */
export function requireShort(option: string, path: string): void {
  const length = Buffer.byteLength(path);
  if (length > 0 && length <= MAX_SOCKET_PATH && !path.includes("\0")) return;
  if (length === 0) throw new Usage(`${option} is empty: give a path`);
  const limit = `a socket's path has at most ${MAX_SOCKET_PATH} bytes`;
  throw new Usage(`${option}: ${limit}, and this one ${length}: ${path}`);
}
