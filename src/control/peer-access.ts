/** Who may use a control socket, besides what the permissions of its file say. */
import { type Credentials, peerCredentials, peerGroups } from "../os/unix-socket.ts";

/** Of the socket's file, as it was made. */
export interface FileAccess {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

const GROUP_BITS = 0o060;
const OTHER_BITS = 0o006;

/**
 * True for root, for the user whose socket it is, and for those that its mode lets in. The kernel
 * checks the file's permissions when a path is opened, but not if a descriptor is passed on, and
 * whoever may change the file can widen them: this holds for as long as the server runs.
 */
export function mayUse(
  { uid, gid }: Omit<Credentials, "pid">,
  groups: readonly number[],
  file: FileAccess,
): boolean {
  if (uid === 0 || uid === file.uid) return true;
  if ((file.mode & OTHER_BITS) === OTHER_BITS) return true;
  const inGroup = gid === file.gid || groups.includes(file.gid);
  return (file.mode & GROUP_BITS) === GROUP_BITS && inGroup;
}

/** @param fd a connection */
export function mayConnect(fd: number, file: FileAccess): boolean {
  return mayUse(peerCredentials(fd), peerGroups(fd), file);
}
