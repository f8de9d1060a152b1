/**
 * The server's end of a control socket. Its clients are local and allowed to connect, yet none may
 * cost it memory or time: each has one request under way, and what it does not read is not written.
 */

import { createServer, type Server, type Socket } from "node:net";
import { resolve } from "node:path";
import { failure } from "../errors.ts";
import { OsError } from "../os/errors.ts";
import { listenUnix, removeSocket, type SocketAccess, socketInode } from "../os/unix-socket.ts";
import { controlPath } from "./control-socket.ts";
import { printable } from "./printable.ts";

export type ControlRequest = Readonly<Record<string, unknown>>;
/** What each kind of request does. An error's message is the answer. */
export type ControlCommands = Readonly<
  Record<string, (request: ControlRequest) => Promise<unknown>>
>;

const MAX_LINE = 65536;
const MAX_CLIENTS = 256;
/** Requests that the NIC has not answered, those of clients that have gone included. */
const MAX_UNANSWERED = 128;
/** A client that neither asks nor reads for so long is dropped. */
const IDLE_MS = 10_000;
const ANSWER_MS = 4000;
/** What fits into a socket's address. */
const MAX_PATH = 107;

export class ControlServer {
  readonly path: string;
  readonly #server: Server;
  readonly #commands: ControlCommands;
  readonly #clients = new Set<Socket>();
  readonly #inode: number;
  readonly #idleMs: number;
  #unanswered = 0;

  /**
   * Listens beside the NIC's socket. A socket file left by a dead server is replaced, nothing else
   * is touched.
   * @throws CommandError
   */
  constructor(
    socketPath: string,
    commands: ControlCommands,
    { idleMs = IDLE_MS, ...access }: SocketAccess & { readonly idleMs?: number } = {},
  ) {
    this.#commands = commands;
    this.#idleMs = idleMs;
    this.path = boundPath(controlPath(socketPath));
    const fd = listen(this.path, access);
    this.#inode = socketInode(this.path);
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#serve(socket));
    this.#server.maxConnections = MAX_CLIENTS;
    // Out of descriptors: this client is lost, later ones need not be.
    this.#server.on("error", () => {});
    this.#server.listen({ fd });
  }

  /** Removes the socket, and lets every client go. */
  close(): void {
    removeSocket(this.path, this.#inode);
    this.#server.close();
    for (const client of this.#clients) client.destroy();
  }

  #serve(socket: Socket): void {
    this.#clients.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => this.#clients.delete(socket));
    socket.setTimeout(this.#idleMs, () => socket.destroy());
    void this.#converse(socket)
      .catch(() => {})
      .finally(() => socket.destroy());
  }

  /**
   * Nothing is read while an answer is under way: the client's next request waits in its socket.
   */
  async #converse(socket: Socket): Promise<void> {
    let pending = "";
    socket.setEncoding("utf8");
    for await (const chunk of socket as AsyncIterable<string>) {
      pending += chunk;
      for (let end = pending.indexOf("\n"); end >= 0; end = pending.indexOf("\n")) {
        const line = pending.slice(0, end);
        pending = pending.slice(end + 1);
        await written(socket, `${await this.#answer(line)}\n`);
      }
      if (pending.length > MAX_LINE) return;
    }
    await new Promise<void>((done) => socket.end(done));
  }

  async #answer(line: string): Promise<string> {
    try {
      return JSON.stringify(await this.#execute(JSON.parse(line)));
    } catch (error) {
      return JSON.stringify({ error: printable((error as Error).message) });
    }
  }

  #execute(request: unknown): Promise<unknown> {
    const kinds = Object.keys(this.#commands).join(", ");
    if (typeof request !== "object" || request === null || Array.isArray(request)) {
      throw new Error(`a request is an object with a kind: ${kinds}`);
    }
    const { kind } = request as ControlRequest;
    if (typeof kind !== "string" || !Object.hasOwn(this.#commands, kind)) {
      const given = printable(JSON.stringify(kind) ?? "none", 40);
      throw new Error(`unknown kind of request ${given}: there are ${kinds}`);
    }
    if (this.#unanswered >= MAX_UNANSWERED) throw new Error("too many requests are under way");
    this.#unanswered++;
    const answer = this.#commands[kind](request as ControlRequest).finally(() => {
      this.#unanswered--;
    });
    return inTime(answer);
  }
}

/** Absolute, so that others find it (`bpfhv top`), unless it does not fit. */
function boundPath(path: string): string {
  const absolute = resolve(path);
  return Buffer.byteLength(absolute) <= MAX_PATH ? absolute : path;
}

function listen(path: string, access: SocketAccess): number {
  try {
    return listenUnix(path, { ...access, backlog: MAX_CLIENTS });
  } catch (error) {
    throw error instanceof OsError ? failure(`control socket: ${error.message}`) : error;
  }
}

/** Ends when the text has left this process; fails if the client goes first. */
function written(socket: Socket, text: string): Promise<void> {
  return new Promise((done, fail) => {
    socket.write(text, (error) => (error ? fail(error) : done()));
  });
}

async function inTime<Answer>(answer: Promise<Answer>): Promise<Answer> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new Error("the NIC's thread does not answer")), ANSWER_MS);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
    // Nobody looks at an answer that comes late.
    answer.catch(() => {});
  }
}
