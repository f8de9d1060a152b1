/**
 * Signals event descriptors whose open file a peer shares. write(2) to a full counter blocks
 * unless O_NONBLOCK is set, and a peer can clear that flag at any time. The completion of an
 * asynchronous request (IOCB_FLAG_RESFD of io_submit(2)) adds to the counter from inside the
 * kernel, which never waits: a full counter stays full. The request is one byte to
 * /dev/null, complete before io_submit returns.
 */
import * as libc from "./libc.ts";

const SYS_IO_SETUP = process.arch === "x64" ? 206 : 0;
const SYS_IO_SUBMIT = process.arch === "x64" ? 209 : 2;
const O_WRONLY_CLOEXEC = 1 | 0o2000000;

/**
 * Layout of one page: the context id, the list of one
 * request, struct iocb (64 bytes), and the byte.
 */
const ID = 0;
const LIST = 8;
const IOCB = 64;
const BYTE = 128;
/** Offsets in struct iocb (linux/aio_abi.h). */
const FIELD = { opcode: 16, fd: 20, buffer: 24, bytes: 32, flags: 56, resultFd: 60 } as const;
const IOCB_CMD_PWRITE = 1;
const IOCB_FLAG_RESFD = 1;
/** Words of struct aio_ring, which the kernel maps at the context's address. */
const RING = { head: 2, tail: 3, magic: 4, BYTES: 32 } as const;
const RING_MAGIC = 0xa10a10a1;

/** One thread's context for `signal`. It lives as long as the process. */
export class AioSignaller {
  readonly #context: number;
  readonly #list: number;
  readonly #request: DataView;
  readonly #ring: Uint32Array;

  private constructor(context: number, page: number, ring: Uint32Array) {
    this.#context = context;
    this.#list = page + LIST;
    this.#request = new DataView(libc.viewAt(page, BYTE + 8));
    this.#ring = ring;
  }

  /**
   * @returns null if the kernel, a sandbox or the system's limit (fs.aio-max-nr) refuses a context
   */
  static open(): AioSignaller | null {
    const page = libc.mmap(0, 4096, 3, 0x22, -1, 0);
    if (!(page > 0 && page < libc.MAP_FAILED / 2)) return null;
    const data = new DataView(libc.viewAt(page, BYTE + 8));
    const sink = libc.open("/dev/null", O_WRONLY_CLOEXEC, 0);
    if (sink < 0 || libc.syscall(SYS_IO_SETUP, 1, page + ID, 0) !== 0) {
      if (sink >= 0) libc.close(sink);
      libc.munmap(page, 4096);
      return null;
    }
    const context = data.getUint32(ID, true) + data.getUint32(ID + 4, true) * 2 ** 32;
    const ring = new Uint32Array(libc.viewAt(context, RING.BYTES));
    if (ring[RING.magic] !== RING_MAGIC) return null;
    libc.putAddress(data, LIST, page + IOCB);
    data.setUint16(IOCB + FIELD.opcode, IOCB_CMD_PWRITE, true);
    data.setUint32(IOCB + FIELD.fd, sink, true);
    libc.putAddress(data, IOCB + FIELD.buffer, page + BYTE);
    libc.putAddress(data, IOCB + FIELD.bytes, 1);
    data.setUint32(IOCB + FIELD.flags, IOCB_FLAG_RESFD, true);
    return new AioSignaller(context, page, ring);
  }

  /** Adds one. @returns false if `fd` is not an event descriptor */
  signal(fd: number): boolean {
    const ring = this.#ring;
    this.#request.setUint32(IOCB + FIELD.resultFd, fd, true);
    const submitted = libc.syscall(SYS_IO_SUBMIT, this.#context, 1, this.#list) === 1;
    // The event is complete. The ring has no other reader, and
    // the kernel lets its reader move the head.
    ring[RING.head] = ring[RING.tail];
    return submitted;
  }
}
