/** Settings that a process makes for itself in the kernel: rights, signals, scheduling. */
import { constants } from "node:os";
import { check, EINVAL } from "./errors.ts";
import * as libc from "./libc.ts";

const PR_SET_NO_NEW_PRIVS = 38;

/**
 * Sets no_new_privs, irrevocably: programs that this process starts gain
 * no rights (set-uid, file capabilities).
 */
export function forbidNewPrivileges(): void {
  check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl", "PR_SET_NO_NEW_PRIVS");
}

/** SIG_IGN of signal(2). */
const IGNORE = 1;

/**
 * Ignores SIGXFSZ, which ends the process by default: a write
 * beyond RLIMIT_FSIZE then fails with EFBIG.
 */
export function ignoreFileSizeSignal(): void {
  libc.signal(constants.signals.SIGXFSZ, IGNORE);
}

const PR_SET_PDEATHSIG = 1;

/** Sends this process `signal` when its parent ends. A change of user clears the setting. */
export function signalAtParentsEnd(signal: number): void {
  check(libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl", "PR_SET_PDEATHSIG");
}

const PR_CAPBSET_DROP = 24;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_CLEAR_ALL = 4;
const MAX_CAPABILITY = 63;

/**
 * Empties the bounding set of this thread and of threads that it starts later:
 * programs that they start gain no capabilities. The thread keeps its own capabilities
 * until it changes user. Needs CAP_SETPCAP.
 */
export function emptyBoundingSet(): void {
  for (let capability = 0; capability <= MAX_CAPABILITY; capability++) {
    // EINVAL: the kernel has no more capabilities.
    if (libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) === 0) continue;
    if (libc.errno() === EINVAL) break;
    check(-1, "prctl(PR_CAPBSET_DROP)", `capability ${capability}`);
  }
  libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

/**
 * sched_setattr(2), and struct sched_attr: size u32 at 0, policy u32
 * at 4 (0: SCHED_OTHER), runtime u64 at 24.
 */
const SYS_SCHED_SETATTR = process.arch === "x64" ? 314 : 274;
const SCHED_ATTR = { SIZE: 48, runtime: 24 } as const;

/**
 * Sets this thread's time slice to `ns` (100 us to 100 ms; Linux 6.12 and newer,
 * EEVDF): a short slice runs soon after a wake-up. Needs no rights. @returns
 * false if the kernel does not support it
 */
export function setTimeSlice(ns: number): boolean {
  const { scratch, STRUCT_OFFSET, STRUCT_ADDRESS } = libc;
  for (let i = 0; i < SCHED_ATTR.SIZE; i += 4) scratch.setUint32(STRUCT_OFFSET + i, 0, true);
  scratch.setUint32(STRUCT_OFFSET, SCHED_ATTR.SIZE, true);
  scratch.setUint32(STRUCT_OFFSET + SCHED_ATTR.runtime, ns, true);
  return libc.syscall(SYS_SCHED_SETATTR, 0, STRUCT_ADDRESS, 0) === 0;
}

/**
 * Ends the process even if a thread hangs in a system call. Node's own exits wait for every thread.
 */
export function exitWithoutThreads(status: number): void {
  libc.exitGroup(status);
}
