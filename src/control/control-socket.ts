/**
 * The socket of a NIC's API. It listens from the start of the NIC, so that its path is taken; HTTP
 * is loaded once packets may flow, and clients wait in the backlog until then.
 */
import { lstatSync, type Stats } from "node:fs";
import { resolve } from "node:path";
import { failure } from "../errors.ts";
import { OsError } from "../os/errors.ts";
import { close } from "../os/fd.ts";
import { listenUnix, removeSocket, type SocketAccess } from "../os/unix-socket.ts";
import type { FileAccess } from "./peer-access.ts";
import { controlPath } from "./socket-path.ts";

const BACKLOG = 256;
/** What fits into a socket's address. */
const MAX_PATH = 107;

/** The socket of a server that hands over its NICs. */
export interface InheritedSocket {
  readonly fd: number;
  readonly file: FileAccess;
}

export class ControlSocket {
  readonly path: string;
  /** Of its file, as it was made. */
  readonly file: FileAccess;
  /** It listens here as long as nothing closes it. */
  readonly fd: number;
  readonly #inode: number;
  #isTaken = false;
  #isRemoved = false;

  /**
   * Listens beside the NIC's socket. A socket file left by a dead server is replaced, nothing else
   * is touched.
   * @throws CommandError
   */
  constructor(socketPath: string, access: SocketAccess = {}, inherited?: InheritedSocket) {
    this.path = boundPath(controlPath(socketPath));
    this.fd = inherited?.fd ?? listenAt(this.path, access);
    // Another may have taken the path of one that was inherited.
    const stat = lstatSync(this.path, { throwIfNoEntry: inherited === undefined });
    const { mode, uid, gid } = inherited?.file ?? (stat as Stats);
    this.file = { mode, uid, gid };
    this.#inode = stat?.ino ?? 0;
  }

  /** The descriptor, for a server that closes it. Call it once. */
  take(): number {
    if (this.#isTaken) throw new Error("the control socket is taken, or closed");
    this.#isTaken = true;
    return this.fd;
  }

  /** From here on the file is another process's, and stays. */
  leave(): void {
    if (this.#isRemoved) return;
    this.#isRemoved = true;
    if (!this.#isTaken) close(this.take());
  }

  /** Removes the file; closes the descriptor if no server has taken it. */
  close(): void {
    if (this.#isRemoved) return;
    this.#isRemoved = true;
    removeSocket(this.path, this.#inode);
    if (!this.#isTaken) close(this.take());
  }

  get isClosed(): boolean {
    return this.#isRemoved;
  }
}

function listenAt(path: string, access: SocketAccess): number {
  try {
    return listenUnix(path, { ...access, backlog: BACKLOG });
  } catch (error) {
    throw error instanceof OsError ? failure(`control socket: ${error.message}`) : error;
  }
}

/** Absolute, so that others find it (`bpfhv top`), unless it does not fit. */
function boundPath(path: string): string {
  const absolute = resolve(path);
  return Buffer.byteLength(absolute) <= MAX_PATH ? absolute : path;
}
