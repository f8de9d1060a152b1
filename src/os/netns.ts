/** Network namespaces: runs synchronous code inside another namespace, on this thread. */
import { check, errnoName, OsError } from "./errors.ts";
import * as libc from "./libc.ts";

const O_CLOEXEC = 0o2000000;
const CLONE_NEWNET = 0x40000000;

/** Opens `NAME` as in `ip netns add NAME`, or an absolute path such as /proc/PID/ns/net. */
function openNamespace(name: string): number {
  const path = name.startsWith("/") ? name : `/run/netns/${name}`;
  const fd = libc.open(path, O_CLOEXEC, 0);
  if (fd >= 0) return fd;
  const number = libc.errno();
  const hint =
    errnoName(number) === "ENOENT"
      ? `make it with 'ip netns add ${name}'`
      : "run as root or with CAP_SYS_ADMIN";
  throw new OsError("open", `network namespace ${name}`, number, hint);
}

/**
 * Runs `action` inside the namespace and returns to the own one, also if it
 * throws. Only for synchronous code: the namespace belongs to the thread, and no
 * other callback of the thread may run in it.
 */
export function inNetns<T>(name: string, action: () => T): T {
  const target = openNamespace(name);
  const home = libc.open("/proc/thread-self/ns/net", O_CLOEXEC, 0);
  try {
    check(home, "open", "/proc/thread-self/ns/net", "mount /proc");
    const rights = "run as root or with CAP_SYS_ADMIN";
    check(libc.setns(target, CLONE_NEWNET), "setns", `network namespace ${name}`, rights);
    try {
      return action();
    } finally {
      check(libc.setns(home, CLONE_NEWNET), "setns", "back to the own network namespace");
    }
  } finally {
    libc.close(target);
    if (home >= 0) libc.close(home);
  }
}
