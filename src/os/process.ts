/** What a process can tell the kernel about itself. */
import { constants } from "node:os";
import { check, EINVAL } from "./errors.ts";
import * as libc from "./libc.ts";

const PR_SET_NO_NEW_PRIVS = 38;

/** From now on no program that this process starts gains rights (set-uid, file capabilities). For good. */
export function forbidNewPrivileges(): void {
  check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl", "PR_SET_NO_NEW_PRIVS");
}

/** SIG_IGN of signal(2). */
const IGNORE = 1;

/**
 * From now on a write beyond RLIMIT_FSIZE fails with EFBIG; by default SIGXFSZ ends the process.
 */
export function ignoreFileSizeSignal(): void {
  libc.signal(constants.signals.SIGXFSZ, IGNORE);
}

const PR_SET_PDEATHSIG = 1;

/** Has this process get `signal` when its parent ends. A change of user clears that. */
export function signalAtParentsEnd(signal: number): void {
  check(libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl", "PR_SET_PDEATHSIG");
}

const PR_CAPBSET_DROP = 24;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_CLEAR_ALL = 4;
const MAX_CAPABILITY = 63;

/**
 * Takes from this thread, and from threads that it starts later, what a program that it starts
 * could gain. What the thread itself has it keeps, until it becomes another user. Needs
 * CAP_SETPCAP.
 */
export function emptyBoundingSet(): void {
  for (let capability = 0; capability <= MAX_CAPABILITY; capability++) {
    // EINVAL: the kernel knows no more of them.
    if (libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) === 0) continue;
    if (libc.errno() === EINVAL) break;
    check(-1, "prctl(PR_CAPBSET_DROP)", `capability ${capability}`);
  }
  libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

/** sched_setattr(2), and struct sched_attr: size u32 at 0, policy u32 at 4 (0: the ordinary one), runtime u64 at 24. */
const SYS_SCHED_SETATTR = process.arch === "x64" ? 314 : 274;
const SCHED_ATTR = { SIZE: 48, runtime: 24 } as const;

/**
 * Asks the scheduler to run this thread soon after it wakes, for short times: a slice of `ns` (100 µs to 100 ms; Linux
 * 6.12 and newer, EEVDF). Costs no rights. @returns false where the kernel does not know how.
 */
export function setTimeSlice(ns: number): boolean {
  const { scratch, STRUCT_OFFSET, STRUCT_ADDRESS } = libc;
  for (let i = 0; i < SCHED_ATTR.SIZE; i += 4) scratch.setUint32(STRUCT_OFFSET + i, 0, true);
  scratch.setUint32(STRUCT_OFFSET, SCHED_ATTR.SIZE, true);
  scratch.setUint32(STRUCT_OFFSET + SCHED_ATTR.runtime, ns, true);
  return libc.syscall(SYS_SCHED_SETATTR, 0, STRUCT_ADDRESS, 0) === 0;
}

/**
 * Ends the process though a thread hangs in a system call; Node's own ways out wait for every
 * thread.
 */
export function exitWithoutThreads(status: number): void {
  libc.exitGroup(status);
}
