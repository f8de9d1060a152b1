/**
 * Runs shell scripts in the guest through its second serial port, one at a time. A request is one
 * line; the reply is the script's output, then "\x01END id status
 * " (script/lib/guest-init).
 */
import type { Socket } from "node:net";
import { within } from "./time.ts";

export interface CommandResult {
  /** Exit status of the shell; 137 if the script was killed at its timeout. */
  readonly status: number;
  /** Standard output and error together. */
  readonly output: string;
}

/** The guest's line buffer holds 4096 bytes, and the port has no flow control. */
const MAX_REQUEST = 4000;
/** Time for the reply to arrive, in addition to the script's own. */
const GRACE_MS = 10_000;
const READY = "\x01READY\n";

interface Waiting {
  readonly id: number;
  resolve(result: CommandResult): void;
  reject(error: Error): void;
}

export class Agent {
  #socket: Socket;
  #boots = 0;
  #received = "";
  #nextId = 1;
  #waiting: Waiting | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #bootWaiters: (() => void)[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => this.#receive(chunk));
    socket.on("error", () => this.fail("QEMU closed the agent's port"));
    socket.on("close", () => this.fail("QEMU closed the agent's port"));
  }

  /** Number of times that the guest's init has started. */
  get boots(): number {
    return this.#boots;
  }

  /** Resolves when init has started `count` times. */
  async booted(count: number): Promise<void> {
    while (this.#boots < count) {
      await new Promise<void>((resolve) => this.#bootWaiters.push(resolve));
    }
  }

  /**
   * Runs a script. Rejects if the guest reboots, QEMU ends, or no reply comes within the timeout
   * and a grace period.
   */
  run(script: string, timeoutMs: number): Promise<CommandResult> {
    const result = this.#queue.then(() => this.#exchange(script, timeoutMs));
    this.#queue = result.catch(() => {});
    return result;
  }

  /** Rejects the pending request. */
  fail(reason: string): void {
    this.#waiting?.reject(new Error(reason));
    this.#waiting = undefined;
  }

  #exchange(script: string, timeoutMs: number): Promise<CommandResult> {
    const id = this.#nextId++;
    const seconds = Math.max(1, Math.ceil(timeoutMs / 1000));
    const request = `${id} ${seconds} ${Buffer.from(script).toString("base64")}\n`;
    if (request.length > MAX_REQUEST) {
      throw new Error(`script of ${script.length} bytes: pass long ones as extraFiles`);
    }
    const answer = new Promise<CommandResult>((resolve, reject) => {
      this.#waiting = { id, resolve, reject };
    });
    this.#received = "";
    if (this.#socket.destroyed) this.fail("QEMU is gone");
    else this.#socket.write(request);
    return within(seconds * 1000 + GRACE_MS, `the guest's reply to: ${script}`, answer);
  }

  #receive(chunk: string): void {
    this.#received += chunk;
    const ready = this.#received.indexOf(READY);
    if (ready >= 0) {
      this.#received = this.#received.slice(ready + READY.length);
      this.#boots++;
      this.fail("the guest rebooted");
      for (const waiter of this.#bootWaiters.splice(0)) waiter();
    }
    const waiting = this.#waiting;
    if (waiting === undefined || !chunk.includes("\n")) return;
    const end = new RegExp(`\x01END ${waiting.id} (\\d+)\n`).exec(this.#received);
    if (end === null) return;
    this.#waiting = undefined;
    const output = Buffer.from(this.#received.slice(0, end.index), "latin1").toString("utf8");
    waiting.resolve({ status: Number(end[1]), output });
  }
}
