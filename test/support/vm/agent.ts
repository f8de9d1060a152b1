/**
 * Runs shell scripts in the guest through its second serial port. A request is one line; the answer
 * is the script's output, then "\x01END id status\n" (script/lib/guest-init). One script at a time.
 */
import type { Socket } from "node:net";
import { within } from "./time.ts";

export interface CommandResult {
  /** As the shell gives it; 137 if the script outlived its time and was killed. */
  readonly status: number;
  /** Standard output and error together. */
  readonly output: string;
}

/** The guest's line buffer holds 4096 bytes, and the port has no flow control. */
const MAX_REQUEST = 4000;
/** For the answer to get through, on top of the script's own time. */
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

  /** How many times the guest's init has come up. */
  get boots(): number {
    return this.#boots;
  }

  /** Resolves when init has come up `count` times in all. */
  async booted(count: number): Promise<void> {
    while (this.#boots < count) {
      await new Promise<void>((resolve) => this.#bootWaiters.push(resolve));
    }
  }

  /**
   * Rejects if the guest reboots, QEMU ends, or no answer comes within the time and a little
   * more.
   */
  run(script: string, timeoutMs: number): Promise<CommandResult> {
    const result = this.#queue.then(() => this.#exchange(script, timeoutMs));
    this.#queue = result.catch(() => {});
    return result;
  }

  /** Rejects what waits. */
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
    return within(seconds * 1000 + GRACE_MS, `the guest answers: ${script}`, answer);
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
