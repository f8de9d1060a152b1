/** A queue of a backend and the two event descriptors that its VMM gave for it. */
import type { Queue } from "../../engine/queue.ts";
import { signalPeer } from "../../os/eventfd.ts";
import { close } from "../../os/fd.ts";

export interface QueueWatch {
  /** A kick descriptor comes, or goes before it is closed: for the loop to wait on. */
  readonly watchKick: (queue: number, fd: number) => void;
  readonly unwatchKick: (queue: number, fd: number) => void;
}

export class ProxyQueue {
  /** For messages: "RX0". */
  readonly name: string;
  readonly queue: Queue;
  /** -1: none. */
  kickFd = -1;
  irqFd = -1;
  readonly #index: number;
  readonly #watch: QueueWatch;

  constructor(index: number, queue: Queue, watch: QueueWatch) {
    this.name = queue.name.toUpperCase();
    this.queue = queue;
    this.#index = index;
    this.#watch = watch;
  }

  /** @param fd -1: none @throws OsError if it cannot be waited for; then the old one stays */
  setKick(fd: number): void {
    if (fd >= 0) this.#watch.watchKick(this.#index, fd);
    this.#dropKick();
    this.kickFd = fd;
  }

  #dropKick(): void {
    if (this.kickFd < 0) return;
    this.#watch.unwatchKick(this.#index, this.kickFd);
    close(this.kickFd);
    this.kickFd = -1;
  }

  /** @param fd -1: none */
  setIrq(fd: number): void {
    if (this.irqFd >= 0) close(this.irqFd);
    this.irqFd = fd;
  }

  /** Interrupts the guest. @returns false if it cannot be reached */
  fire(): boolean {
    return this.irqFd >= 0 && signalPeer(this.irqFd);
  }

  /** Says what has to come before packets can flow; null if nothing. */
  missing(): string | null {
    if (!this.queue.registered || this.queue.absent) return `${this.name} has no context`;
    if (this.kickFd < 0) return `${this.name} has no kick descriptor`;
    if (this.irqFd < 0) return `${this.name} has no interrupt descriptor`;
    return null;
  }

  /** Drops the context and the descriptors of a connection that ended. */
  release(): void {
    this.queue.disable();
    this.queue.forget();
    this.#dropKick();
    this.setIrq(-1);
  }
}
