/**
 * UNIX stream sockets, all non-blocking and close-on-exec.
 * `messages.ts` passes descriptors over them.
 */
import { chmodSync, chownSync, fstatSync, lstatSync, unlinkSync } from "node:fs";
import {
  check,
  EADDRINUSE,
  EAGAIN,
  ECONNREFUSED,
  EEXIST,
  EINTR,
  ENAMETOOLONG,
  ENOENT,
  errnoName,
  OsError,
} from "./errors.ts";
import * as libc from "./libc.ts";

export { SocketReceiver, sendMessage } from "./messages.ts";

const AF_UNIX = 1;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000;
const ACCEPT_FLAGS = 0o4000 | 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERGROUPS = 59;
const SHUT_RDWR = 2;
const O_PATH_NOFOLLOW_CLOEXEC = 0o10000000 | 0o400000 | 0o2000000;
const PRIVATE = 0o600;
const ECONNABORTED = 103;
/** sun_path has 108 bytes, the last one for the NUL. */
const MAX_PATH = 107;

function newSocket(): number {
  return check(
    libc.socket(AF_UNIX, SOCK_STREAM_NONBLOCK_CLOEXEC, 0),
    "socket",
    "AF_UNIX",
    "raise the limit of open files (ulimit -n)",
  );
}

/** Builds struct sockaddr_un in the scratch page; returns its length. "@": an abstract name. */
export function putUnixAddress(call: string, path: string): number {
  const length = putAddress(call, path);
  if (!path.startsWith("@")) return length;
  libc.scratch.setUint8(libc.STRUCT_OFFSET + 2, 0);
  return length - 1;
}

function putAddress(call: string, path: string): number {
  const bytes = Buffer.from(path);
  if (bytes.length === 0 || bytes.length > MAX_PATH || bytes.includes(0)) {
    const why = `a socket path has 1 to ${MAX_PATH} bytes, this one has ${bytes.length}`;
    throw new OsError(call, path, ENAMETOOLONG, "use a shorter path, e.g. below /run or /tmp", why);
  }
  libc.scratch.setUint16(libc.STRUCT_OFFSET, AF_UNIX, true);
  for (let i = 0; i <= bytes.length; i++) {
    libc.scratch.setUint8(libc.STRUCT_OFFSET + 2 + i, bytes[i] ?? 0);
  }
  return 2 + bytes.length + 1;
}

/** Runs `action` on a new socket, and closes it if `action` throws. */
function withSocket(action: (fd: number) => void): number {
  const fd = newSocket();
  try {
    action(fd);
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  return fd;
}

/** Connects to a listening socket. @param absent what to do if no process listens there */
export function connectUnix(path: string, absent = "start the server first"): number {
  return withSocket((fd) => {
    const number = tryConnect(fd, path);
    if (number === 0) return;
    const hint =
      number === ENOENT || number === ECONNREFUSED
        ? absent
        : number === EAGAIN
          ? "the server does not accept: its backlog is full"
          : "";
    throw new OsError("connect", path, number, hint);
  });
}

function tryConnect(fd: number, path: string): number {
  const length = putAddress("connect", path);
  return libc.connect(fd, libc.STRUCT_ADDRESS, length) === 0 ? 0 : libc.errno();
}

/** Access rights of a socket; by default only its creator may connect. */
export interface SocketAccess {
  /** Permission bits, not masked by the umask; default 0600. */
  readonly mode?: number;
  /** Owner and group of the file; default: those of the process. */
  readonly uid?: number;
  readonly gid?: number;
}

export interface ListenOptions extends SocketAccess {
  readonly backlog?: number;
}

/**
 * Listens at `path`, by default for its owner only (mode 0600). It replaces a socket file whose
 * server ended. A live server or another type of file is an error, and nothing is deleted.
 */
export function listenUnix(path: string, options: ListenOptions = {}): number {
  return withSocket((fd) => {
    // The file gets the socket's mode minus the umask. So no other user can ever connect.
    check(libc.fchmod(fd, PRIVATE), "fchmod", path);
    if (!tryBind(fd, path)) {
      removeStale(path);
      if (!tryBind(fd, path)) throw taken(path);
    }
    try {
      grant(path, options);
      check(libc.listen(fd, options.backlog ?? 8), "listen", path);
    } catch (error) {
      unlinkSync(path);
      throw error;
    }
  });
}

/**
 * Sets owner and mode. Called before `listen`, until which every connect is refused. Opens the path
 * once and follows no link.
 */
function grant(path: string, { mode = PRIVATE, uid = -1, gid = -1 }: SocketAccess): void {
  if (mode === PRIVATE && uid < 0 && gid < 0) return;
  const file = check(libc.open(path, O_PATH_NOFOLLOW_CLOEXEC, 0), "open", path);
  try {
    if (!fstatSync(file).isSocket()) {
      throw new OsError("open", path, EEXIST, "", "another file has taken the socket's place");
    }
    const itself = `/proc/self/fd/${file}`;
    if (uid >= 0 || gid >= 0) giveTo(itself, path, uid, gid);
    chmodSync(itself, mode);
  } finally {
    libc.close(file);
  }
}

function giveTo(itself: string, path: string, uid: number, gid: number): void {
  try {
    chownSync(itself, uid, gid);
  } catch (error) {
    const number = -((error as NodeJS.ErrnoException).errno ?? 0);
    const hint = "only root may give it to another user, or to a group that it is not in";
    throw new OsError("chown", path, number, hint);
  }
}

/** Binds the socket. @returns false if the path exists */
function tryBind(fd: number, path: string): boolean {
  const length = putAddress("bind", path);
  if (libc.bind(fd, libc.STRUCT_ADDRESS, length) === 0) return true;
  const number = libc.errno();
  if (number === EADDRINUSE) return false;
  const hint =
    errnoName(number) === "ENOENT" ? "make its folder first" : "choose a folder of yours";
  throw new OsError("bind", path, number, hint);
}

function taken(path: string): OsError {
  const hint = "stop it or choose another path";
  return new OsError("bind", path, EADDRINUSE, hint, "a live server listens there");
}

function removeStale(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) {
    const hint = "choose another path or remove it yourself";
    throw new OsError("bind", path, EEXIST, hint, "a file that is not a socket is in the way");
  }
  const probe = newSocket();
  const number = tryConnect(probe, path);
  libc.close(probe);
  if (number !== ECONNREFUSED && number !== ENOENT) throw taken(path);
  unlinkSync(path);
}

/** Returns the inode of a socket's file, for `removeSocket`; 0 if it does not exist. */
export function socketInode(path: string): number {
  return lstatSync(path, { throwIfNoEntry: false })?.ino ?? 0;
}

/** Removes the file of a socket that listened, unless another one has replaced it since. */
export function removeSocket(path: string, inode: number): void {
  try {
    if (lstatSync(path, { throwIfNoEntry: false })?.ino === inode) unlinkSync(path);
  } catch (error) {
    // A server that gave up its rights may not write to the
    // folder. The next one replaces a dead socket.
    if (!["EACCES", "EPERM"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
  }
}

/** Accepts the next connection. @returns -1 if none is pending */
export function accept(fd: number): number {
  const connection = libc.accept4(fd, 0, 0, ACCEPT_FLAGS);
  if (connection >= 0) return connection;
  const number = libc.errno();
  if (number === EAGAIN || number === EINTR || number === ECONNABORTED) return -1;
  throw new OsError("accept", `fd ${fd}`, number, "raise the limit of open files (ulimit -n)");
}

/** Returns two connected sockets. */
export function socketPair(): [number, number] {
  check(
    libc.socketpair(AF_UNIX, SOCK_STREAM_NONBLOCK_CLOEXEC, 0, libc.STRUCT_ADDRESS),
    "socketpair",
    "AF_UNIX",
  );
  const { scratch, STRUCT_OFFSET } = libc;
  return [scratch.getInt32(STRUCT_OFFSET, true), scratch.getInt32(STRUCT_OFFSET + 4, true)];
}

/**
 * Shuts both directions down; the peer reads the end of the
 * stream. Does nothing if already shut down.
 */
export function shutdown(fd: number): void {
  libc.shutdownSocket(fd, SHUT_RDWR);
}

export interface Credentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Returns the peer's credentials, which the kernel took at connect. */
export function peerCredentials(fd: number): Credentials {
  const { scratch, STRUCT_OFFSET, STRUCT_ADDRESS } = libc;
  scratch.setUint32(STRUCT_OFFSET + 16, 12, true);
  const result = libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, STRUCT_ADDRESS, STRUCT_ADDRESS + 16);
  check(result, "getsockopt(SO_PEERCRED)", `fd ${fd}`);
  return {
    pid: scratch.getInt32(STRUCT_OFFSET, true),
    uid: scratch.getUint32(STRUCT_OFFSET + 4, true),
    gid: scratch.getUint32(STRUCT_OFFSET + 8, true),
  };
}

/** Room for groups in the scratch page. */
const MAX_GROUPS = 900;

/** Supplementary groups of who connected; none if there are more than 900 of them. */
export function peerGroups(fd: number): number[] {
  const { scratch, STRUCT_OFFSET, STRUCT_ADDRESS } = libc;
  const length = STRUCT_OFFSET + 4 * MAX_GROUPS;
  scratch.setUint32(length, 4 * MAX_GROUPS, true);
  const lengthAt = STRUCT_ADDRESS + 4 * MAX_GROUPS;
  if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, STRUCT_ADDRESS, lengthAt) !== 0) return [];
  const count = scratch.getUint32(length, true) / 4;
  return Array.from({ length: count }, (_, i) => scratch.getUint32(STRUCT_OFFSET + 4 * i, true));
}
