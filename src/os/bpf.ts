/**
 * bpf(2): verifies a program with the running kernel's verifier, and runs it there. The program's
 * memory is the single value of an array map, as in the guest driver.
 */
import { check, errnoName, OsError } from "./errors.ts";
import * as libc from "./libc.ts";
import { type Mapping, mapAnonymous, mapFile, PAGE } from "./memory.ts";

const SYSCALL: Readonly<Record<string, number>> = { x64: 321, arm64: 280, riscv64: 280 };
const MAP_CREATE = 0;
const PROG_LOAD = 5;
const PROG_TEST_RUN = 10;

const MAP_TYPE_ARRAY = 2;
const BPF_F_MMAPABLE = 1024;
const PROG_TYPE_SOCKET_FILTER = 1;

const ATTRIBUTES = 128;
const LOG_BYTES = 1 << 20;
const LOG_OFFSET = PAGE;
const ADDRESS_SPACE = 2 ** 32;
const RIGHTS = "needs root, or CAP_BPF and CAP_NET_ADMIN";
/** Packet bytes that TEST_RUN requires: at least an Ethernet header. */
const PACKET = 64;

/** `pseudo` of the load that puts a map value's address into R1 (BPF_PSEUDO_MAP_VALUE). */
const MAP_VALUE = 2;
const WIDE_LOAD = 0x18;

function bpf(command: number, fill: (attributes: DataView) => void): number {
  const number = SYSCALL[process.arch];
  if (number === undefined) throw new Error(`bpf(2): unknown system call on ${process.arch}`);
  const at = libc.scratch.byteOffset + libc.STRUCT_OFFSET;
  const attributes = new DataView(libc.scratch.buffer, at, ATTRIBUTES);
  for (let i = 0; i < ATTRIBUTES; i += 8) attributes.setUint32(i, 0, true);
  for (let i = 4; i < ATTRIBUTES; i += 8) attributes.setUint32(i, 0, true);
  fill(attributes);
  return libc.syscall(number, command, libc.STRUCT_ADDRESS, ATTRIBUTES);
}

function setAddress(view: DataView, offset: number, address: number): void {
  view.setUint32(offset, address % ADDRESS_SPACE, true);
  view.setUint32(offset + 4, address / ADDRESS_SPACE, true);
}

/** One value of `size` bytes in the kernel, shared with this process. */
export class BpfMemory {
  readonly fd: number;
  readonly size: number;
  readonly #mapping: Mapping;
  /** The value itself. Must not be accessed after `close`. */
  readonly bytes: Uint8Array;

  constructor(size: number) {
    this.size = size;
    this.fd = check(
      bpf(MAP_CREATE, (a) => {
        a.setUint32(0, MAP_TYPE_ARRAY, true);
        a.setUint32(4, 4, true);
        a.setUint32(8, size, true);
        a.setUint32(12, 1, true);
        a.setUint32(16, BPF_F_MMAPABLE, true);
      }),
      "bpf(MAP_CREATE)",
      `array with a value of ${size} bytes`,
      RIGHTS,
    );
    try {
      const length = Math.ceil(size / PAGE) * PAGE;
      this.#mapping = mapFile(this.fd, 0, length, { write: true });
      this.bytes = new Uint8Array(this.#mapping.view(0, length), 0, size);
    } catch (error) {
      libc.close(this.fd);
      throw error;
    }
  }

  close(): void {
    this.#mapping.unmap();
    libc.close(this.fd);
  }
}

const LOAD_TRIES = 5;

/** The verifier's result: a program, or the reason and the whole log. */
export type LoadResult =
  | { readonly accepted: true; readonly fd: number; readonly log: string }
  | { readonly accepted: false; readonly code: string; readonly log: string };

export interface LoadOptions {
  /**
   * Requests the log only if the kernel refuses: quicker, and an
   * accepted program's log is never too long.
   */
  readonly quiet?: boolean;
}

/**
 * Loads code as a socket filter. With `memory`, an instruction in front sets R1 to its address;
 * instruction indices in the log are then 2 higher than in `code`.
 * @throws OsError EPERM without the right to load programs
 */
export function loadSocketFilter(
  code: Uint8Array,
  memory?: BpfMemory,
  options: LoadOptions = {},
): LoadResult {
  const program = memory === undefined ? code : withMemory(code, memory);
  const area = mapAnonymous(LOG_OFFSET + LOG_BYTES + program.length);
  try {
    const codeOffset = LOG_OFFSET + LOG_BYTES;
    new Uint8Array(area.view(codeOffset, program.length)).set(program);
    new Uint8Array(area.view(0, 8)).set(Buffer.from("GPL\0"));
    if (options.quiet) {
      const fd = progLoad(area.address, program.length, false);
      if (fd >= 0) return { accepted: true, fd, log: "" };
    }
    const fd = progLoad(area.address, program.length, true);
    const number = fd < 0 ? libc.errno() : 0;
    const log = text(new Uint8Array(area.view(LOG_OFFSET, LOG_BYTES)));
    if (fd >= 0) return { accepted: true, fd, log };
    if (errnoName(number) === "EPERM" && log === "") {
      throw new OsError("bpf(PROG_LOAD)", "socket filter", number, RIGHTS);
    }
    return { accepted: false, code: errnoName(number), log };
  } finally {
    area.unmap();
  }
}

/** @param area the licence, then at LOG_OFFSET room for the log, then `length` bytes of code */
function progLoad(area: number, length: number, log: boolean): number {
  for (let tries = 1; ; tries++) {
    const fd = progLoadOnce(area, length, log);
    // The verifier returns EAGAIN if a signal is pending, as
    // from a debugger or a shell's job control.
    if (fd >= 0 || tries === LOAD_TRIES || errnoName(libc.errno()) !== "EAGAIN") return fd;
  }
}

function progLoadOnce(area: number, length: number, log: boolean): number {
  return bpf(PROG_LOAD, (a) => {
    a.setUint32(0, PROG_TYPE_SOCKET_FILTER, true);
    a.setUint32(4, length / 8, true);
    setAddress(a, 8, area + LOG_OFFSET + LOG_BYTES);
    setAddress(a, 16, area);
    if (!log) return;
    a.setUint32(24, 1, true);
    a.setUint32(28, LOG_BYTES, true);
    setAddress(a, 32, area + LOG_OFFSET);
  });
}

function withMemory(code: Uint8Array, memory: BpfMemory): Uint8Array {
  const program = new Uint8Array(16 + code.length);
  const view = new DataView(program.buffer);
  view.setUint8(0, WIDE_LOAD);
  view.setUint8(1, 1 | (MAP_VALUE << 4));
  view.setInt32(4, memory.fd, true);
  program.set(code, 16);
  return program;
}

function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(bytes.subarray(0, end < 0 ? bytes.length : end)).toString("latin1");
}

/**
 * Runs a loaded socket filter `repeat` times. @returns the low
 * half of R0, and mean nanoseconds per run
 */
export function testRun(fd: number, repeat = 1): { r0: number; nanoseconds: number } {
  const area = mapAnonymous(PAGE);
  try {
    let attributes: DataView | undefined;
    const result = bpf(PROG_TEST_RUN, (a) => {
      attributes = a;
      a.setUint32(0, fd, true);
      a.setUint32(8, PACKET, true);
      setAddress(a, 16, area.address);
      a.setUint32(32, repeat, true);
    });
    check(result, "bpf(PROG_TEST_RUN)", `program fd ${fd}`);
    return {
      r0: attributes!.getUint32(4, true),
      nanoseconds: attributes!.getUint32(36, true),
    };
  } finally {
    area.unmap();
  }
}

/** @returns why programs cannot be loaded here, or null if they can */
export function bpfProblem(): string | null {
  try {
    const memory = new BpfMemory(8);
    memory.close();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
