/** Rights that are given up once everything that needs them is open. */
import { readFileSync, rmSync } from "node:fs";
import { failure, Usage } from "../errors.ts";
import { emptyBoundingSet, forbidNewPrivileges } from "../os/process.ts";
import { confineThreads } from "../os/seccomp.ts";

export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Before anything is opened: the account given as `--user`, or undefined without it; and from here
 * on no program that this process or its threads start can gain rights.
 * @throws Usage
 */
export function prepareToDrop(user: string | undefined): Account | undefined {
  forbidNewPrivileges();
  if (user === undefined) return undefined;
  const line = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((each) => each.split(":"))
    .find(([name]) => name === user);
  if (line === undefined) throw new Usage(`--user ${user}: there is no such user`);
  if (process.getuid?.() !== 0)
    throw new Usage("--user needs root: there are no rights to give up");
  emptyBoundingSet();
  return { name: user, uid: Number(line[2]), gid: Number(line[3]) };
}

/**
 * Becomes that user, in every thread (setuid(3) of the C library), with its main group. From then
 * on no thread starts a program, or does anything else that only a program that was broken into
 * would do.
 * @param warn is called if the kernel cannot confine the threads
 */
export function dropTo(account: Account | undefined, warn: (text: string) => void): void {
  if (account === undefined) return;
  process.setgroups?.([account.gid]);
  process.setgid?.(account.gid);
  process.setuid?.(account.name);
  if (process.getuid?.() === 0) throw failure(`--user ${account.name}: it has root's rights, too`);
  if (confineThreads()) return;
  warn(
    "this kernel has no seccomp: only the server's own threads are kept from gaining privileges",
  );
}

/**
 * Removes a file that was made before the rights went; in a folder of root's it stays, and the next
 * start replaces it.
 */
export function removeIfAllowed(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EACCES" && code !== "EPERM") throw error;
  }
}
