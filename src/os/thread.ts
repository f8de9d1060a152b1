/** Reports what a thread of this process does, for messages about a hung one. */
import { readFileSync } from "node:fs";
import { fdTarget } from "./fd.ts";
import * as libc from "./libc.ts";

const X64 = process.arch === "x64";
const SYS_GETTID = X64 ? 186 : 178;

/** Returns the calling thread's id in /proc. */
export function currentThread(): number {
  return libc.syscall(SYS_GETTID, 0, 0, 0);
}

/**
 * System calls of a NIC's worker: name, number on x86-64, number on arm64 and riscv64, and whether
 * the first argument is a descriptor.
 */
const CALLS: readonly (readonly [name: string, x64: number, generic: number, fd: boolean])[] = [
  ["read", 0, 63, true],
  ["write", 1, 64, true],
  ["close", 3, 57, true],
  ["fstat", 5, 80, true],
  ["poll", 7, 73, false],
  ["mmap", 9, 222, false],
  ["munmap", 11, 215, false],
  ["ioctl", 16, 29, true],
  ["pread64", 17, 67, true],
  ["pwrite64", 18, 68, true],
  ["readv", 19, 65, true],
  ["writev", 20, 66, true],
  ["sendto", 44, 206, true],
  ["recvfrom", 45, 207, true],
  ["sendmsg", 46, 211, true],
  ["recvmsg", 47, 212, true],
  ["fcntl", 72, 25, true],
  ["fsync", 74, 82, true],
  ["ftruncate", 77, 46, true],
  ["futex", 202, 98, false],
  ["io_submit", 209, 2, false],
  ["epoll_wait", 232, -1, true],
  ["epoll_ctl", 233, 21, true],
  ["openat", 257, 56, false],
  ["epoll_pwait", 281, 22, true],
  ["accept4", 288, 242, true],
  ["preadv2", 327, 286, true],
  ["statx", 332, 291, false],
];

/** @returns null if the file cannot be read: the thread ended, or the kernel does not show it */
function ask(thread: number, file: string): string | null {
  try {
    return readFileSync(`/proc/self/task/${thread}/${file}`, "utf8").trim();
  } catch {
    return null;
  }
}

interface CpuUse {
  readonly ranMs: number;
  /** Runnable without a CPU; a wait counts when it is over. */
  readonly waitedMs: number;
  readonly isRunnable: boolean;
}

function cpuUse(thread: number): CpuUse {
  const [ran, waited] = (ask(thread, "schedstat") ?? "0 0").split(" ").map(Number);
  // The name before it may hold anything.
  const state = ask(thread, "stat")?.split(") ").at(-1)?.[0];
  return { ranMs: ran / 1e6, waitedMs: waited / 1e6, isRunnable: state === "R" };
}

/** @returns for how many milliseconds from now on the thread has waited for a CPU, about */
export function watchCpuWaits(thread: number): () => number {
  const begun = performance.now();
  const before = cpuUse(thread);
  return () => {
    const now = cpuUse(thread);
    // A wait may be as long as all of the time.
    if (now.isRunnable) return performance.now() - begun - (now.ranMs - before.ranMs);
    return now.waitedMs - before.waitedMs;
  };
}

/**
 * Returns the system call that the thread blocks in, with its
 * descriptor: "write on fd 23 (pipe:[4711])".
 */
export function whatHolds(thread: number): string {
  const words = ask(thread, "syscall")?.split(" ");
  const symbol = ask(thread, "wchan") ?? "";
  const within = /^[a-z_]/i.test(symbol) ? `, in ${symbol}` : "";
  if (words === undefined) return `a call that the kernel does not name${within}`;
  if (words[0] === "running") return "no system call: it is computing";
  const number = Number(words[0]);
  if (number < 0) return `memory that does not come (a page fault)${within}`;
  const call = CALLS.find(([, x64, generic]) => number === (X64 ? x64 : generic));
  if (call === undefined) return `system call ${number}${within}`;
  const fd = Number(words[1]) | 0;
  return call[3] ? `${call[0]} on fd ${fd} (${fdTarget(fd)})${within}` : `${call[0]}${within}`;
}
