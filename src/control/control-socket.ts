/**
 * The socket of a NIC's API. It listens from the start of the NIC, so that its path is taken; HTTP
 * is loaded once packets may flow, and clients wait in the backlog until then.
 */
import { lstatSync } from "node:fs";
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

export class ControlSocket {
  readonly path: string;
  /** Of its file, as it was made. */
  readonly file: FileAccess;
  readonly #inode: number;
  #fd: number | null;
  #isRemoved = false;

  /**
   * Listens beside the NIC's socket. A socket file left by a dead server is replaced, nothing else
   * is touched.
   * @throws CommandError
   */
  constructor(socketPath: string, access: SocketAccess = {}) {
    this.path = boundPath(controlPath(socketPath));
    try {
      this.#fd = listenUnix(this.path, { ...access, backlog: BACKLOG });
    } catch (error) {
      throw error instanceof OsError ? failure(`control socket: ${error.message}`) : error;
    }
    const { mode, uid, gid, ino } = lstatSync(this.path);
    this.file = { mode, uid, gid };
    this.#inode = ino;
  }

  /** The descriptor, for a server that closes it. Call it once. */
  take(): number {
    const fd = this.#fd;
    if (fd === null) throw new Error("the control socket is taken, or closed");
    this.#fd = null;
    return fd;
  }

  /** Removes the file; closes the descriptor if no server has taken it. */
  close(): void {
    if (this.#isRemoved) return;
    this.#isRemoved = true;
    removeSocket(this.path, this.#inode);
    if (this.#fd !== null) close(this.take());
  }

  get isClosed(): boolean {
    return this.#isRemoved;
  }
}

/** Absolute, so that others find it (`bpfhv top`), unless it does not fit. */
function boundPath(path: string): string {
  const absolute = resolve(path);
  return Buffer.byteLength(absolute) <= MAX_PATH ? absolute : path;
}
