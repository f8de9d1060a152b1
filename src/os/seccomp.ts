/**
 * A seccomp filter for every thread of the process, including those of Node.js. It
 * irrevocably refuses calls that a running server never makes. It is also the only way to
 * set no_new_privs in threads of Node.js.
 */
import { constants } from "node:os";
import * as libc from "./libc.ts";

const SYS_SECCOMP = process.arch === "x64" ? 317 : 277;
const SECCOMP_SET_MODE_FILTER = 1;
const SECCOMP_FILTER_FLAG_TSYNC = 1;
const RET_ALLOW = 0x7fff0000;
const RET_EPERM = 0x00050000 | constants.errno.EPERM;

/** Classic BPF (linux/filter.h) over struct seccomp_data: number at 0, architecture at 4. */
const LOAD_WORD = 0x20;
const JUMP_IF_EQUAL = 0x15;
const JUMP_IF_AT_LEAST = 0x35;
const RETURN = 0x06;
const NUMBER = 0;
const ARCH = 4;
const AUDIT_ARCH_X86_64 = 0xc000003e;
const X32_BIT = 0x40000000;

/** Numbers of x86-64 (asm/unistd_64.h). */
const REFUSED: Readonly<Record<string, number>> = {
  ...{ execve: 59, execveat: 322 },
  ...{ ptrace: 101, process_vm_readv: 310, process_vm_writev: 311, pidfd_getfd: 438 },
  ...{ mount: 165, umount2: 166, pivot_root: 155, chroot: 161, setns: 308, unshare: 272 },
  ...{ open_tree: 428, move_mount: 429, fsopen: 430, fsmount: 432, mount_setattr: 442 },
  ...{ bpf: 321, perf_event_open: 298, userfaultfd: 323, io_uring_setup: 425 },
  ...{ add_key: 248, request_key: 249, keyctl: 250 },
  ...{ init_module: 175, finit_module: 313, delete_module: 176 },
  ...{ kexec_load: 246, kexec_file_load: 320, reboot: 169, swapon: 167, swapoff: 168 },
  ...{ open_by_handle_at: 304, personality: 135, modify_ldt: 154, iopl: 172, ioperm: 173 },
  ...{ settimeofday: 164, clock_settime: 227, clock_adjtime: 305, acct: 163, quotactl: 179 },
};

type Instruction = readonly [code: number, ifTrue: number, ifFalse: number, value: number];

/**
 * Returns the filter of an architecture. Other architectures than x86-64 refuse no call: their
 * threads only lose the way to more rights. The i386 and x32 tables number the same calls
 * differently, so all calls by these are refused.
 */
export function filterFor(arch: string): Instruction[] {
  const numbers = arch === "x64" ? Object.values(REFUSED) : [];
  if (numbers.length === 0) return [[RETURN, 0, 0, RET_ALLOW]];
  const first = 4;
  // Layout: tests, allow, refuse. A jump counts from the next instruction.
  const refuse = (from: number): number => first + numbers.length - from;
  return [
    [LOAD_WORD, 0, 0, ARCH],
    [JUMP_IF_EQUAL, 0, refuse(1), AUDIT_ARCH_X86_64],
    [LOAD_WORD, 0, 0, NUMBER],
    [JUMP_IF_AT_LEAST, refuse(3), 0, X32_BIT],
    ...numbers.map((number, i): Instruction => [JUMP_IF_EQUAL, refuse(first + i), 0, number]),
    [RETURN, 0, 0, RET_ALLOW],
    [RETURN, 0, 0, RET_EPERM],
  ];
}

/**
 * Installs the filter in all threads. Call `forbidNewPrivileges` before.
 * @returns false if the kernel has no seccomp, or a thread already has a filter
 */
export function confineThreads(): boolean {
  const filter = filterFor(process.arch);
  const { scratch, STRUCT_OFFSET, STRUCT_ADDRESS } = libc;
  // struct sock_fprog: length u16, pointer at 8; the instructions follow, 8 bytes each.
  scratch.setUint16(STRUCT_OFFSET, filter.length, true);
  scratch.setBigUint64(STRUCT_OFFSET + 8, BigInt(STRUCT_ADDRESS + 16), true);
  for (const [i, [code, ifTrue, ifFalse, value]] of filter.entries()) {
    const at = STRUCT_OFFSET + 16 + 8 * i;
    scratch.setUint16(at, code, true);
    scratch.setUint8(at + 2, ifTrue);
    scratch.setUint8(at + 3, ifFalse);
    scratch.setUint32(at + 4, value, true);
  }
  const flags = SECCOMP_FILTER_FLAG_TSYNC;
  return libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, STRUCT_ADDRESS) === 0;
}
