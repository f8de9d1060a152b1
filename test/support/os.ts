/** Support for all tests: open descriptors, load-dependent time limits, isolated checks. */
import { execFileSync, fork } from "node:child_process";
import { mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { check } from "../../src/os/errors.ts";
import { prepareToSignalPeers } from "../../src/os/eventfd.ts";
import { close } from "../../src/os/fd.ts";
import * as libc from "../../src/os/libc.ts";
import { socketPair } from "../../src/os/unix-socket.ts";

/** Returns the number of open descriptors, without the one used to count. */
export function openFds(): number {
  return readdirSync("/proc/self/fd").length - 1;
}

const CLOSED_LATE_MS = 10_000;

/**
 * Number of open descriptors, once it is what the test expects. A thread closes those of peers that
 * could block (`closePeer`): on a loaded machine some milliseconds after the call.
 */
export function openFdsOnce(expected: number): number {
  const clock = new Int32Array(new SharedArrayBuffer(4));
  const end = performance.now() + CLOSED_LATE_MS;
  while (openFds() !== expected && performance.now() < end) Atomics.wait(clock, 0, 0, 1);
  return openFds();
}

/**
 * A process starts and ends in a fraction of this, even with
 * ten times as many runnable tasks as CPUs.
 */
const WAIT_MS = 60_000;
const LOOK_MS = 20;

/** Returns the runnable tasks per CPU, 1 to 8: everything takes that many times as long. */
const loadNow = (): number =>
  Math.min(8, Math.max(1, (loadavg()[0] ?? 0) / availableParallelism()));
const LOAD = loadNow();

/** Scales a time limit by the machine's load at the start. */
export const atMost = (ms: number): number => Math.ceil(ms * LOAD);

/** Scales a time limit by the current load, for tests that run for minutes. */
export const atMostNow = (ms: number): number => Math.ceil(ms * loadNow());

/** Polls until the result is not undefined, null or false. @throws Error after a minute */
export async function until<T>(
  what: string,
  look: () => T | undefined | null | false | Promise<T | undefined | null | false>,
): Promise<T> {
  for (const end = performance.now() + WAIT_MS; ; ) {
    const seen = await look();
    if (seen !== undefined && seen !== null && seen !== false) return seen;
    if (performance.now() > end) throw new Error(`not within ${WAIT_MS / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** True if this run must not skip tests that need `what` (BPFHV_REQUIRE, a comma list). */
export function requires(what: "vm" | "tap" | "bpf"): boolean {
  return (process.env.BPFHV_REQUIRE ?? "").split(",").includes(what);
}

// Opens the descriptor of the thread's signaller, which is not a leak of a test.
prepareToSignalPeers();

const SYS_PIPE2 = process.arch === "x64" ? 293 : 59;
const SYS_TIMERFD_CREATE = process.arch === "x64" ? 283 : 85;
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;

/** Returns a blocking pipe: reading end, writing end. */
export function pipe(): [number, number] {
  check(libc.syscall(SYS_PIPE2, libc.STRUCT_ADDRESS, O_CLOEXEC, 0), "pipe2", "");
  const { scratch, STRUCT_OFFSET } = libc;
  return [scratch.getInt32(STRUCT_OFFSET, true), scratch.getInt32(STRUCT_OFFSET + 4, true)];
}

/**
 * Returns one of each type of descriptor that a hostile peer may send in place of an event
 * descriptor or guest memory. The caller closes them.
 */
export function strangers(): { readonly name: string; readonly fd: number }[] {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-strangers-"));
  const [reading, writing] = pipe();
  const [near, far] = socketPair();
  const all = [
    { name: "the reading end of a pipe", fd: reading },
    { name: "the writing end of a pipe", fd: writing },
    { name: "a socket", fd: near },
    { name: "its other end", fd: far },
    { name: "a folder", fd: openSync(folder, "r") },
    { name: "a path only", fd: libc.open(folder, O_PATH | O_CLOEXEC, 0) },
    { name: "a file on a disk", fd: openSync(join(folder, "file"), "w+") },
    { name: "/dev/zero", fd: openSync("/dev/zero", "r+") },
    { name: "/dev/null", fd: openSync("/dev/null", "r+") },
    { name: "a timer", fd: libc.syscall(SYS_TIMERFD_CREATE, 1, 0, 0) },
    { name: "an epoll set", fd: libc.epollCreate(O_CLOEXEC) },
  ];
  rmSync(folder, { recursive: true });
  return all;
}

const F_DUPFD_CLOEXEC = 1030;

/** Returns a second descriptor of the same open file. */
export function dup(fd: number): number {
  return check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC)", `fd ${fd}`);
}

/** Returns an event descriptor as from a hostile peer: blocking, with a full counter. */
export function blockingFull(): number {
  const fd = libc.eventfd(0, 0);
  libc.scratch.setUint32(libc.STRUCT_OFFSET, 0xfffffffe, true);
  libc.scratch.setUint32(libc.STRUCT_OFFSET + 4, 0xffffffff, true);
  check(libc.write(fd, libc.STRUCT_ADDRESS, 8), "write", "a full counter");
  return fd;
}

/** Opens descriptors up to the process's limit, but leaves `free` of them. */
export function exhaust(free: number): number[] {
  execFileSync("prlimit", ["--pid", `${process.pid}`, `--nofile=${openFds() + 40}`]);
  const held: number[] = [];
  try {
    for (;;) held.push(dup(0));
  } catch {
    for (const fd of held.splice(0, free)) close(fd);
    return held;
  }
}

/** Set in a process that runs one check of a test file, to its name. */
const CHECK = "BPFHV_CHECK";

/**
 * Runs `checks[name]` in a separate process, because a blocking system call cannot be ended
 * otherwise. Call it first in the file: in that process it does not return.
 * @returns a function for tests that returns the exit status, null after a hang
 */
export function isolated(
  file: string,
  checks: Readonly<Record<string, () => void>>,
): (name: string) => Promise<number | null> {
  const wanted = process.env[CHECK];
  if (wanted !== undefined) {
    checks[wanted]!();
    process.exit(0);
  }
  return (name) => {
    const child = fork(new URL(file), [], { env: { ...process.env, [CHECK]: name } });
    const timer = setTimeout(() => child.kill("SIGKILL"), WAIT_MS);
    return new Promise((resolve) => {
      child.on("exit", (status) => {
        clearTimeout(timer);
        resolve(status);
      });
    });
  };
}

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_LINGER = 13;
const MSG_DONTWAIT = 0x40;
const SYS_SETSOCKOPT = process.arch === "x64" ? 54 : 208;
const SYS_GETSOCKNAME = process.arch === "x64" ? 51 : 204;

/**
 * Returns a TCP socket whose close waits `seconds`, because its peer does not read, and descriptors
 * to close afterwards.
 */
export function lingering(seconds: number): { readonly fd: number; readonly others: number[] } {
  const { scratch, STRUCT_OFFSET: at, STRUCT_ADDRESS: address } = libc;
  const listener = check(libc.socket(AF_INET, SOCK_STREAM, 0), "socket", "TCP");
  scratch.setUint32(at, AF_INET, true);
  // 127.0.0.1, any port.
  scratch.setUint32(at + 4, 0x0100007f, true);
  check(libc.bind(listener, address, 16), "bind", "127.0.0.1");
  check(libc.listen(listener, 1), "listen", "127.0.0.1");
  scratch.setUint32(at + 32, 16, true);
  check(libc.syscall(SYS_GETSOCKNAME, listener, address, address + 32), "getsockname", "");
  const fd = check(libc.socket(AF_INET, SOCK_STREAM, 0), "socket", "TCP");
  check(libc.connect(fd, address, 16), "connect", "127.0.0.1");
  const peer = check(libc.accept4(listener, 0, 0, 0), "accept", "127.0.0.1");
  while (libc.send(fd, libc.scratchAddress, 4096, MSG_DONTWAIT) > 0);
  scratch.setUint32(at, 1, true);
  scratch.setUint32(at + 4, seconds, true);
  check(libc.syscall6(SYS_SETSOCKOPT, fd, SOL_SOCKET, SO_LINGER, address, 8, 0), "setsockopt", "");
  return { fd, others: [listener, peer] };
}

/** `/proc/PID/task/TID/status` of each thread that has not ended meanwhile. */
export function threadStates(pid: number): string[] {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).flatMap((id) => {
    try {
      return readFileSync(`${tasks}/${id}/status`, "utf8");
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ESRCH") return [];
      throw error;
    }
  });
}
