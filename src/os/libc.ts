/**
 * The C library, loaded once per thread through koffi. Native calls are declared only here.
 *
 * Addresses are declared `uint64_t` and passed as plain numbers, which hold every user-space
 * address exactly (below 2^53); nothing here makes a BigInt. Variadic functions (fcntl, ioctl,
 * prctl, open, syscall) are declared with the arguments that we pass: on Linux the calling
 * conventions of x86-64, arm64 and riscv64 agree.
 */
import koffi from "koffi";
import { forgetFd, recordFd } from "./ledger.ts";

// The process itself, which has libc loaded already.
const library = koffi.load(null);

function declare<F extends (...args: never[]) => number>(prototype: string): F {
  return library.func(prototype) as unknown as F;
}

type Fd = number;
type Address = number;

/** Records the descriptors that a function returns (ledger.ts). */
function recorded<A extends unknown[]>(open: (...arguments_: A) => Fd): (...arguments_: A) => Fd {
  return (...arguments_) => recordFd(open(...arguments_));
}

const nativeClose = declare<(fd: Fd) => number>("int close(int)");
export function close(fd: Fd): number {
  forgetFd(fd);
  return nativeClose(fd);
}
export const read = declare<(fd: Fd, to: Address, n: number) => number>(
  "int64_t read(int, uint64_t, size_t)",
);
export const write = declare<(fd: Fd, from: Address, n: number) => number>(
  "int64_t write(int, uint64_t, size_t)",
);
export const readv = declare<(fd: Fd, iov: Address, n: number) => number>(
  "int64_t readv(int, uint64_t, int)",
);
export const writev = declare<(fd: Fd, iov: Address, n: number) => number>(
  "int64_t writev(int, uint64_t, int)",
);
export const pwrite = declare<(fd: Fd, from: Address, n: number, offset: number) => number>(
  "int64_t pwrite(int, uint64_t, size_t, int64_t)",
);
export const memcpy = declare<(to: Address, from: Address, n: number) => number>(
  "uint64_t memcpy(uint64_t, uint64_t, size_t)",
);
export const open = recorded(
  declare<(path: string, flags: number, mode: number) => number>(
    "int open(const char *, int, uint32_t)",
  ),
);
export const fcntl = declare<(fd: Fd, command: number, argument: number) => number>(
  "int fcntl(int, int, int64_t)",
);
export const ioctl = declare<(fd: Fd, request: number, argument: Address) => number>(
  "int ioctl(int, uint64_t, uint64_t)",
);
export const fstatfs = declare<(fd: Fd, to: Address) => number>("int fstatfs(int, uint64_t)");
export const signal = declare<(number: number, handler: Address) => number>(
  "uint64_t signal(int, uint64_t)",
);
export const fchmod = declare<(fd: Fd, mode: number) => number>("int fchmod(int, uint32_t)");
export const ftruncate = declare<(fd: Fd, size: number) => number>("int ftruncate(int, int64_t)");

export const mmap = declare<
  (at: Address, length: number, prot: number, flags: number, fd: Fd, offset: number) => number
>("uint64_t mmap(uint64_t, size_t, int, int, int, int64_t)");
export const munmap = declare<(at: Address, length: number) => number>(
  "int munmap(uint64_t, size_t)",
);
export const memfdCreate = recorded(
  declare<(name: string, flags: number) => number>("int memfd_create(const char *, uint32_t)"),
);

export const eventfd = recorded(
  declare<(initial: number, flags: number) => number>("int eventfd(uint32_t, int)"),
);
export const epollCreate = recorded(declare<(flags: number) => number>("int epoll_create1(int)"));
export const epollCtl = declare<(ep: Fd, op: number, fd: Fd, event: Address) => number>(
  "int epoll_ctl(int, int, int, uint64_t)",
);
export const epollWait = declare<
  (ep: Fd, events: Address, max: number, timeoutMs: number) => number
>("int epoll_wait(int, uint64_t, int, int)");

export const poll = declare<(fds: Address, n: number, timeoutMs: number) => number>(
  "int poll(uint64_t, uint64_t, int)",
);

export const socket = recorded(
  declare<(domain: number, type: number, protocol: number) => number>("int socket(int, int, int)"),
);
export const socketpair = declare<
  (domain: number, type: number, protocol: number, fds: Address) => number
>("int socketpair(int, int, int, uint64_t)");
export const bind = declare<(fd: Fd, name: Address, length: number) => number>(
  "int bind(int, uint64_t, uint32_t)",
);
export const connect = declare<(fd: Fd, name: Address, length: number) => number>(
  "int connect(int, uint64_t, uint32_t)",
);
export const listen = declare<(fd: Fd, backlog: number) => number>("int listen(int, int)");
export const accept4 = recorded(
  declare<(fd: Fd, name: Address, length: Address, flags: number) => number>(
    "int accept4(int, uint64_t, uint64_t, int)",
  ),
);
export const getsockopt = declare<
  (fd: Fd, level: number, option: number, value: Address, length: Address) => number
>("int getsockopt(int, int, int, uint64_t, uint64_t)");
export const shutdownSocket = declare<(fd: Fd, how: number) => number>("int shutdown(int, int)");
export const send = declare<(fd: Fd, from: Address, n: number, flags: number) => number>(
  "int64_t send(int, uint64_t, size_t, int)",
);
export const sendmsg = declare<(fd: Fd, message: Address, flags: number) => number>(
  "int64_t sendmsg(int, uint64_t, int)",
);
export const recvmsg = declare<(fd: Fd, message: Address, flags: number) => number>(
  "int64_t recvmsg(int, uint64_t, int)",
);

export const setns = declare<(fd: Fd, type: number) => number>("int setns(int, int)");
export const ifNameToIndex = declare<(name: string) => number>(
  "uint32_t if_nametoindex(const char *)",
);
/** Ends the process at once, without exit handlers and without waiting for threads. */
export const exitGroup = declare<(status: number) => number>("int _exit(int)");
export const prctl = declare<
  (option: number, a: number, b: number, c: number, d: number) => number
>("int prctl(int, uint64_t, uint64_t, uint64_t, uint64_t)");

export const syscall = declare<(number: number, a: number, b: number, c: number) => number>(
  "int64_t syscall(int64_t, uint64_t, uint64_t, uint64_t)",
);
/** For system calls with 64-bit arguments; -1 is all ones. */
export const syscall6 = declare<
  (number: number, a: number, b: number, c: number, d: number, e: number, f: number) => number
>("int64_t syscall(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t)");
/** Handle 0: searches the whole process. */
export const dlsym = declare<(handle: number, name: string) => number>(
  "uint64_t dlsym(uint64_t, const char *)",
);
export const pthreadCreate = declare<
  (thread: Address, attributes: Address, start: Address, argument: number) => number
>("int pthread_create(uint64_t, uint64_t, uint64_t, uint64_t)");
export const pthreadDetach = declare<(thread: number) => number>("int pthread_detach(uint64_t)");

const memmove = declare<(to: ArrayBufferView, from: ArrayBufferView, n: number) => number>(
  "uint64_t memmove(void *, const void *, size_t)",
);

const memcpyOut = declare<(to: ArrayBufferView, from: Address, n: number) => number>(
  "uint64_t memcpy(void *, uint64_t, size_t)",
);
const memcpyIn = declare<(to: Address, from: ArrayBufferView, n: number) => number>(
  "uint64_t memcpy(uint64_t, const void *, size_t)",
);

/** Fills `to` from memory at `address`. The caller guarantees the length. Creates no view. */
export function copyOut(to: Uint8Array, address: Address): void {
  memcpyOut(to, address, to.length);
}

/** Copies `from` to memory at `address`. The caller guarantees the length. Creates no view. */
export function copyIn(address: Address, from: Uint8Array): void {
  memcpyIn(address, from, from.length);
}

/** Returns the address of a view's bytes, which must not move, as in a WebAssembly memory. */
export function addressOf(view: ArrayBufferView): Address {
  return memmove(view, view, 0);
}

/** Returns errno of this thread's last call through this table: read it right after the call. */
export const errno: () => number = koffi.errno as () => number;

/**
 * Counts the views made in this thread, so that a test can show that repeated operations make none.
 */
export const views = { made: 0 };

/**
 * Returns an ArrayBuffer over `length` bytes at `address`: no copy, and no protection after the
 * memory is unmapped. Each one takes some 230 bytes that only a finalizer frees, and finalizers run
 * in the event loop. A worker that blocks in the engine's loop never gets there: make views per
 * mapping, never per access.
 */
export function viewAt(address: Address, length: number): ArrayBuffer {
  views.made++;
  return koffi.view(address, length);
}

/** Result of a failed `mmap`, (void *)-1, as a number. */
export const MAP_FAILED = 2 ** 64;

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const SCRATCH_BYTES = 4096;

function mapScratch(): number {
  const at = mmap(0, SCRATCH_BYTES, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  // Nothing works without this page. OsError depends on this file, so it is unavailable here.
  if (!(at > 0 && at < 2 ** 53)) throw new Error("mmap of one page failed: out of memory");
  return at;
}

/**
 * One page for the arguments of calls that take structures. Its content is valid only until the
 * next call. The first 64 bytes are reserved: the constant u64 1 at 0, a u64 for results at 8, a
 * struct iovec of that u64 at 16.
 */
export const scratchAddress = mapScratch();
export const scratch = new DataView(viewAt(scratchAddress, SCRATCH_BYTES));
scratch.setUint32(0, 1, true);

export const ONE_ADDRESS = scratchAddress;
export const RESULT_OFFSET = 8;
export const RESULT_IOVEC_ADDRESS = scratchAddress + 16;
scratch.setUint32(16, (scratchAddress + RESULT_OFFSET) >>> 0, true);
scratch.setUint32(20, Math.floor(scratchAddress / 2 ** 32), true);
scratch.setUint32(24, 8, true);
/** Offset in the scratch page at which callers may build structures. */
export const STRUCT_OFFSET = 64;
export const STRUCT_ADDRESS = scratchAddress + STRUCT_OFFSET;

/** Writes an address, or a length, as the u64 of a struct. */
export function putAddress(data: DataView, offset: number, value: number): void {
  data.setUint32(offset, value >>> 0, true);
  data.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
}
