/** Descriptors that a service manager passes to a process: sd_listen_fds(3). */
import { close } from "./fd.ts";
import * as libc from "./libc.ts";

const FIRST = 3;
const MOST = 8192;
const F_SETFD = 2;
const FD_CLOEXEC = 1;

/**
 * Takes them, once: the environment does not name them any more.
 * @returns descriptors by name; of a name that came twice the first one
 */
export function takeInherited(env: NodeJS.ProcessEnv): Map<string, number> {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names = "" } = env;
  delete env.LISTEN_PID;
  delete env.LISTEN_FDS;
  delete env.LISTEN_FDNAMES;
  const found = new Map<string, number>();
  const n = Number(count);
  if (Number(pid) !== process.pid || !Number.isInteger(n) || n < 0 || n > MOST) return found;
  const words = names.split(":");
  for (let i = 0; i < n; i++) {
    const fd = FIRST + i;
    if (libc.fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) continue;
    const name = words[i] ?? "";
    if (found.has(name)) close(fd);
    else found.set(name, fd);
  }
  return found;
}
