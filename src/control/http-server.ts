/**
 * HTTP on a control socket. Its clients are local and allowed to connect, yet none may cost the
 * server memory or time: what they send and what waits for them is bounded, and so is how long
 * either may take.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { duplicate } from "../os/fd.ts";
import { peerCredentials } from "../os/unix-socket.ts";
import type { ControlSocket } from "./control-socket.ts";
import { mayConnect } from "./peer-access.ts";

export interface HttpRequest {
  readonly method: string;
  readonly url: string;
  readonly body: string;
}

export type HttpAnswer =
  | { readonly status: number; readonly body: unknown; readonly allow?: string }
  /** Writes to the client for as long as it stays. */
  | { readonly stream: (client: StreamClient) => void };

export interface StreamClient {
  /** @returns false if the client is gone */
  readonly write: (text: string) => boolean;
  readonly ended: Promise<void>;
}

/** What was refused, or dropped. */
export interface HttpCounters {
  clients: number;
  refusedPeers: number;
  malformed: number;
  tooLarge: number;
  droppedStreams: number;
}

export const LIMITS = {
  clients: 256,
  headerBytes: 8192,
  bodyBytes: 65536,
  /** A body that is too long is read and discarded up to here, so that its client hears why. */
  discardedBytes: 16 * 1024 * 1024,
  requestMs: 10_000,
  /** For a NIC to answer in. */
  answerMs: 4000,
  idleMs: 10_000,
  /** Requests that the NIC has not answered, those of clients that have gone included. */
  unanswered: 128,
  streams: 32,
  /** What waits for a client of a stream that does not read. */
  streamBytes: 65536,
  heartbeatMs: 10_000,
} as const;
export type Limits = { readonly [Name in keyof typeof LIMITS]: number };

/** How long the answer to what is not HTTP may wait to be read. */
const LINGER_MS = 1000;

export interface HttpServerOptions {
  readonly socket: ControlSocket;
  readonly answer: (request: HttpRequest) => Promise<HttpAnswer>;
  readonly limits?: Partial<Limits>;
  /**
   * Takes over connections that ask for `UPGRADE`, with a descriptor of its own.
   * Missing: they are answered as other requests are.
   */
  readonly upgrade?: (fd: number) => void;
}

/** What a client asks for in the header `upgrade` of GET /v1/take-over. */
export const UPGRADE = "bpfhv-take-over";

export class HttpServer {
  readonly counters: HttpCounters = {
    ...{ clients: 0, refusedPeers: 0, malformed: 0, tooLarge: 0, droppedStreams: 0 },
  };
  readonly #socket: ControlSocket;
  readonly #answer: (request: HttpRequest) => Promise<HttpAnswer>;
  readonly #limits: Limits;
  readonly #clients = new Set<Socket>();
  /** Sockets that were answered that they do not speak HTTP. */
  readonly #malformed = new WeakSet<Socket>();
  /** The answer that is due on each socket. */
  readonly #due = new WeakMap<Socket, ServerResponse>();
  /** Sockets that get no further answer: refused, or their client sent requests without waiting. */
  readonly #silenced = new WeakSet<Socket>();
  readonly #server: Server;
  #unanswered = 0;
  #streams = 0;

  constructor({ socket: control, answer, limits = {}, upgrade }: HttpServerOptions) {
    this.#socket = control;
    this.#answer = answer;
    this.#limits = { ...LIMITS, ...limits };
    const { requestMs, idleMs, headerBytes, clients } = this.#limits;
    const server = createServer(
      {
        ...{ requestTimeout: requestMs, headersTimeout: requestMs, keepAliveTimeout: idleMs },
        ...{ maxHeaderSize: headerBytes, connectionsCheckingInterval: 1000 },
      },
      (request, response) => this.#requested(request, response),
    );
    server.timeout = idleMs;
    server.maxConnections = clients;
    server.on("connection", (socket) => this.#connected(socket));
    server.on("checkContinue", (request, response) => {
      if (!this.#isTooLong(request)) response.writeContinue();
      this.#requested(request, response);
    });
    server.on("clientError", (error, socket) => this.#refuse(error, socket as Socket));
    if (upgrade !== undefined) {
      server.on("upgrade", (request, socket, head) => {
        this.#upgraded(request, socket as Socket, head, upgrade);
      });
    }
    // Out of descriptors: this client is lost, later ones need not be.
    server.on("error", () => {});
    this.#server = server;
    server.listen({ fd: control.take() });
  }

  /** Removes the socket unless another process has it, and ends every connection. */
  close(): void {
    this.#socket.close();
    this.#server.close();
    for (const client of this.#clients) client.destroy();
  }

  #upgraded(
    request: IncomingMessage,
    socket: Socket,
    head: Buffer,
    upgrade: (fd: number) => void,
  ): void {
    const fd = fdOf(socket);
    const isAsked = request.url === "/v1/take-over" && request.headers.upgrade === UPGRADE;
    if (!isAsked || head.length > 0 || this.#silenced.has(socket) || fd < 0) {
      socket.end(bareAnswer(400, `upgrade: ask GET /v1/take-over for ${UPGRADE}`));
      setTimeout(() => socket.destroy(), LINGER_MS).unref();
      return;
    }
    const { uid } = peerCredentials(fd);
    if (uid !== 0 && uid !== process.getuid?.()) {
      socket.end(bareAnswer(403, "only root and the server's own user may take its NICs over"));
      setTimeout(() => socket.destroy(), LINGER_MS).unref();
      return;
    }
    // Node would read from the socket, and cannot send descriptors.
    const own = duplicate(fd);
    socket.destroy();
    upgrade(own);
  }

  #connected(socket: Socket): void {
    const fd = fdOf(socket);
    if (fd < 0 || !mayConnect(fd, this.#socket.file)) {
      this.counters.refusedPeers++;
      // Its request is read before the end, or it would hear of a broken pipe instead.
      this.#silenced.add(socket);
      socket.end(bareAnswer(403, "this user may not use this control socket: see --socket-group"));
      setTimeout(() => socket.destroy(), LINGER_MS).unref();
      return;
    }
    this.counters.clients++;
    this.#clients.add(socket);
    socket.once("close", () => this.#clients.delete(socket));
  }

  /** What is not HTTP, or too slow: one answer, and what follows is discarded. */
  #refuse(error: NodeJS.ErrnoException, socket: Socket): void {
    if (this.#malformed.has(socket)) return;
    this.#malformed.add(socket);
    this.counters.malformed++;
    if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
    if (error.code === "HPE_HEADER_OVERFLOW") {
      socket.end(bareAnswer(431, `the header is longer than ${this.#limits.headerBytes} bytes`));
    } else if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") {
      socket.end(bareAnswer(408, `the request took longer than ${this.#limits.requestMs} ms`));
    } else socket.end(bareAnswer(400, `this is not HTTP: ask GET /v1/openapi.json`));
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  }

  #isTooLong({ headers }: IncomingMessage): boolean {
    return Number(headers["content-length"] ?? 0) > this.#limits.bodyBytes;
  }

  /**
   * One request of a connection at a time. Who sends more before the answer hears that one only:
   * Node would hold all of them, and an answer for each.
   */
  #requested(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    const due = this.#due.get(socket);
    if (due === undefined && !this.#silenced.has(socket)) {
      this.#due.set(socket, response);
      response.once("close", () => this.#due.delete(socket));
      void this.#serve(request, response);
      return;
    }
    this.#silenced.add(socket);
    socket.pause();
    if (due === undefined || due.writableEnded) socket.destroySoon();
    // An endless answer: a stream of events.
    else if (due.headersSent) socket.destroy();
    else due.setHeader("connection", "close");
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request;
    try {
      const waits = request.headers.expect !== undefined && this.#isTooLong(request);
      const body = waits ? null : await bodyOf(request, this.#limits);
      if (body === null) {
        this.counters.tooLarge++;
        const error = `the body is longer than ${this.#limits.bodyBytes} bytes`;
        return send(response, { status: 413, body: { error } }, true);
      }
      // The client is not idle: a guest may take longer for a set.
      socket.setTimeout(0);
      const answer = await this.#answered({
        ...{ method: request.method ?? "", url: request.url ?? "", body },
      });
      socket.setTimeout(this.#limits.idleMs);
      if ("stream" in answer) this.#stream(response, answer.stream);
      else send(response, answer, false);
    } catch {
      // The client went in the middle of its request.
      response.destroy();
    }
  }

  async #answered(request: HttpRequest): Promise<HttpAnswer> {
    if (this.#unanswered >= this.#limits.unanswered) {
      return { status: 503, body: { error: "too many requests are waiting: ask again" } };
    }
    this.#unanswered++;
    try {
      return await this.#answer(request);
    } finally {
      this.#unanswered--;
    }
  }

  #stream(response: ServerResponse, begin: (client: StreamClient) => void): void {
    const { streams, streamBytes, heartbeatMs } = this.#limits;
    const { socket } = response;
    if (socket === null || this.#silenced.has(socket)) {
      return send(response, { status: 400, body: { error: "send one request at a time" } }, true);
    }
    if (this.#streams >= streams) {
      const error = `${streams} clients listen to events already`;
      return send(response, { status: 503, body: { error } }, true);
    }
    this.#streams++;
    const write = (text: string): boolean => {
      if (response.destroyed) return false;
      if (response.writableLength + text.length > streamBytes) {
        this.counters.droppedStreams++;
        response.destroy();
        return false;
      }
      response.write(text);
      return true;
    };
    socket.setTimeout(0);
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.flushHeaders();
    const heartbeat = setInterval(() => write(":\n\n"), heartbeatMs);
    heartbeat.unref();
    const ended = new Promise<void>((done) => {
      response.once("close", () => {
        clearInterval(heartbeat);
        this.#streams--;
        done();
      });
    });
    begin({ write, ended });
  }
}

/** Node tells a connection's descriptor nowhere else. @returns -1 if it is closed */
function fdOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { readonly _handle?: { readonly fd: number } };
  return handle?.fd ?? -1;
}

/** @returns null: it is too long */
async function bodyOf(request: IncomingMessage, limits: Limits): Promise<string | null> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length <= limits.bodyBytes) chunks.push(chunk);
    if (length > limits.discardedBytes) return null;
  }
  return length > limits.bodyBytes ? null : Buffer.concat(chunks).toString();
}

type PlainAnswer = Exclude<HttpAnswer, { readonly stream: unknown }>;

function send(response: ServerResponse, answer: PlainAnswer, last: boolean): void {
  const text = `${JSON.stringify(answer.body)}\n`;
  response.writeHead(answer.status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    ...(answer.allow === undefined ? {} : { allow: answer.allow }),
    ...(last || response.hasHeader("connection") ? { connection: "close" } : {}),
  });
  response.end(text);
}

const REASONS: Readonly<Record<number, string>> = {
  ...{ 400: "Bad Request", 403: "Forbidden", 408: "Request Timeout" },
  431: "Request Header Fields Too Large",
};

/** For a connection that Node's HTTP has given up. */
function bareAnswer(status: number, error: string): string {
  const text = `${JSON.stringify({ error })}\n`;
  return [
    `HTTP/1.1 ${status} ${REASONS[status]}`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(text)}`,
    "connection: close",
    "",
    text,
  ].join("\r\n");
}
