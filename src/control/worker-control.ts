/**
 * The control of a worker's loop: a frontend, and requests from the main thread. Each request is
 * announced through an eventfd, because a thread that waits in epoll does not see its message port.
 */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import type { Control } from "../engine/loop.ts";
import { EPOLLIN, Epoll } from "../os/epoll.ts";
import { drainEventFd } from "../os/eventfd.ts";
import type { Request } from "./messages.ts";

/** Differs from the tags of queue pairs and of frontends. */
const WAKE_TAG = 2048;
/** Between two counts of the pulse, which a watchdog reads. */
const WAIT_MS = 500;

export class WorkerControl implements Control {
  readonly #frontend: Control;
  readonly #main: MessagePort;
  readonly #wakeFd: number;
  readonly #onRequest: (request: Request) => void;

  /** @param wakeFd eventfd that the main thread signals after each request */
  constructor(
    frontend: Control,
    main: MessagePort,
    wakeFd: number,
    onRequest: (request: Request) => void,
  ) {
    this.#frontend = frontend;
    this.#main = main;
    this.#wakeFd = wakeFd;
    this.#onRequest = onRequest;
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

  /** Carries out requests, and nothing else, as long as `holds`. */
  waitWhile(holds: () => boolean, pulse: Int32Array): void {
    if (!holds()) return;
    const epoll = new Epoll(1);
    try {
      epoll.add(this.#wakeFd, EPOLLIN, WAKE_TAG);
      while (holds()) {
        epoll.wait(WAIT_MS);
        pulse[0]++;
        this.receive();
      }
    } finally {
      epoll.close();
    }
  }

  /**
   * Carries out the requests that have come. Called by housekeeping, which each of them triggers.
   * @param waits true when later requests must wait until the loop has paused: call it again then
   */
  receive(waits: () => boolean = () => false): void {
    drainEventFd(this.#wakeFd);
    while (!waits()) {
      const received = receiveMessageOnPort(this.#main);
      if (received === undefined) return;
      this.#onRequest(received.message as Request);
    }
  }
}
