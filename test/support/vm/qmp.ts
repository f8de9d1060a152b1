/** QMP, QEMU's control protocol: JSON lines over a socket. */
import type { Socket } from "node:net";
import { within } from "./time.ts";

export interface QmpEvent {
  readonly event: string;
  readonly data?: unknown;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class Qmp {
  /** All events so far, oldest first. */
  readonly events: QmpEvent[] = [];
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #rest = "";
  #closed = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => this.#receive(chunk));
    socket.on("error", () => this.#fail());
    socket.on("close", () => this.#fail());
  }

  /** Runs a command; the first must be qmp_capabilities. Rejects with QEMU's error text. */
  execute(command: string, args: object = {}, timeoutMs = 10_000): Promise<unknown> {
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => {
      if (this.#closed) reject(new Error(`QMP ${command}: QEMU is gone`));
      this.#waiting.set(id, { resolve, reject });
    });
    if (!this.#closed) {
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    }
    return within(timeoutMs, `QMP ${command} is answered`, answer).finally(() =>
      this.#waiting.delete(id),
    );
  }

  #receive(chunk: string): void {
    const lines = (this.#rest + chunk).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) if (line.trim() !== "") this.#dispatch(JSON.parse(line));
  }

  #dispatch(message: Record<string, unknown>): void {
    if (typeof message.event === "string") this.events.push(message as unknown as QmpEvent);
    const waiting = this.#waiting.get(message.id as number);
    if (waiting === undefined) return;
    if ("error" in message) {
      const { desc } = message.error as { desc: string };
      waiting.reject(new Error(`QMP: ${desc}`));
    } else waiting.resolve(message.return);
  }

  #fail(): void {
    this.#closed = true;
    for (const waiting of this.#waiting.values()) waiting.reject(new Error("QMP: QEMU is gone"));
  }
}
