/** epoll: readiness of many descriptors in one call, with results in a flat array. */
import { check, EBADF, EINTR, OsError } from "./errors.ts";
import * as libc from "./libc.ts";
import { type Mapping, mapAnonymous } from "./memory.ts";

export const EPOLLIN = 0x001;
export const EPOLLOUT = 0x004;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;
/** Edge-triggered: reports each change to ready once, not as long as it lasts. */
export const EPOLLET = 0x80000000;

const EPOLL_CLOEXEC = 0o2000000;
const CTL_ADD = 1;
const CTL_DEL = 2;
const CTL_MOD = 3;

/** struct epoll_event: u32 events, then u64 data at 4 on x86-64 (packed), at 8 elsewhere. */
const STRIDE = process.arch === "x64" ? 3 : 4;
const TAG = process.arch === "x64" ? 1 : 2;

export class Epoll {
  readonly #fd: number;
  readonly #memory: Mapping;
  readonly #words: Uint32Array;
  readonly #capacity: number;
  #open = true;

  /** `capacity`: largest number of ready descriptors that one `wait` reports. */
  constructor(capacity = 64) {
    this.#capacity = capacity;
    this.#fd = check(libc.epollCreate(EPOLL_CLOEXEC), "epoll_create1", "");
    try {
      // One more entry than results: the argument of `add` and `modify`.
      this.#memory = mapAnonymous((capacity + 1) * STRIDE * 4);
    } catch (error) {
      libc.close(this.#fd);
      throw error;
    }
    this.#words = new Uint32Array(this.#memory.view(0, (capacity + 1) * STRIDE * 4));
  }

  /** Watches `fd`. Its events carry `tag` (u32). Errors and hang-up are always reported. */
  add(fd: number, events: number, tag: number): void {
    this.#control(CTL_ADD, fd, events, tag);
  }

  modify(fd: number, events: number, tag: number): void {
    this.#control(CTL_MOD, fd, events, tag);
  }

  remove(fd: number): void {
    this.#control(CTL_DEL, fd, 0, 0);
  }

  #control(operation: number, fd: number, events: number, tag: number): void {
    // The table is unmapped by `close`: an access would kill the process.
    if (!this.#open) throw new OsError("epoll_ctl", `fd ${fd}`, EBADF, "", "the set is closed");
    const at = this.#capacity * STRIDE;
    this.#words[at] = events;
    this.#words[at + TAG] = tag;
    const address = this.#memory.address + at * 4;
    check(libc.epollCtl(this.#fd, operation, fd, address), "epoll_ctl", `fd ${fd}`);
  }

  /**
   * Waits for ready descriptors and returns their number; -1 waits forever,
   * 0 polls. A signal ends the wait with 0.
   */
  wait(timeoutMs: number): number {
    const n = libc.epollWait(this.#fd, this.#memory.address, this.#capacity, timeoutMs);
    if (n >= 0) return n;
    const number = libc.errno();
    if (number === EINTR) return 0;
    throw new OsError("epoll_wait", `fd ${this.#fd}`, number);
  }

  /** Returns the tag of the i-th ready descriptor of the last `wait`. */
  tag(i: number): number {
    return this.#words[i * STRIDE + TAG]!;
  }

  /** Returns the events of the i-th ready descriptor of the last `wait`. */
  events(i: number): number {
    return this.#words[i * STRIDE]!;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.#fd);
    this.#memory.unmap();
  }
}
