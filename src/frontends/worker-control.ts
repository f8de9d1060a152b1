/**
 * The control of a NIC's loop: a frontend, and messages from the thread that started the worker, each announced
 * through an eventfd, since a thread that waits in epoll does not see its message port.
 */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import type { Control } from "../engine/loop.ts";
import { EPOLLIN, type Epoll } from "../os/epoll.ts";
import { drainEventFd } from "../os/eventfd.ts";
import type { ToWorker } from "./nic-messages.ts";

/** A tag outside those of queue pairs and of frontends. */
const WAKE_TAG = 2048;

export class WorkerControl implements Control {
  readonly #frontend: Control;
  readonly #port: MessagePort;
  readonly #wakeFd: number;
  readonly #onCommand: (command: ToWorker) => void;

  constructor(
    frontend: Control,
    main: { readonly port: MessagePort; readonly wakeFd: number },
    onCommand: (command: ToWorker) => void,
  ) {
    this.#frontend = frontend;
    this.#port = main.port;
    this.#wakeFd = main.wakeFd;
    this.#onCommand = onCommand;
  }

  register(epoll: Epoll): void {
    this.#frontend.register(epoll);
    epoll.add(this.#wakeFd, EPOLLIN, WAKE_TAG);
  }

  get timeoutMs(): number {
    return this.#frontend.timeoutMs;
  }

  handle(): number {
    return this.#frontend.handle();
  }

  woken(tag: number): boolean {
    return tag !== WAKE_TAG && (this.#frontend.woken?.(tag) ?? false);
  }

  /** Messages from the main thread: looked for once per sleep, and by housekeeping when there is none. */
  receive(): void {
    drainEventFd(this.#wakeFd);
    for (;;) {
      const received = receiveMessageOnPort(this.#port);
      if (received === undefined) return;
      this.#onCommand(received.message as ToWorker);
    }
  }
}
