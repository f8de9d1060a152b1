/** How long the path of a NIC's socket may be. */
import { Usage } from "../errors.ts";

/**
 * sun_path holds 108 bytes with the NUL, and the control
 * socket's path has ".ctl" behind it (unix(7)).
 */
export const MAX_SOCKET_PATH = 107 - ".ctl".length;

/** Node and the kernel cut longer ones off, or refuse them when half is done. @throws Usage */
export function requireShort(option: string, path: string): void {
  const length = Buffer.byteLength(path);
  if (length > 0 && length <= MAX_SOCKET_PATH && !path.includes("\0")) return;
  if (length === 0) throw new Usage(`${option} is empty: give a path`);
  const limit = `a socket's path has at most ${MAX_SOCKET_PATH} bytes`;
  throw new Usage(`${option}: ${limit}, and this one ${length}: ${path}`);
}
