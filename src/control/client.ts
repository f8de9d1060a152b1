/**
 * The client's end of a control socket, `SOCKET.ctl`. Whoever listens there may be hostile: the
 * answer has a deadline, a length limit, and comes without control characters.
 */
import { request as httpRequest, type IncomingMessage } from "node:http";
import { Socket } from "node:net";
import { connectUnix, peerCredentials } from "../os/unix-socket.ts";
import { printable } from "./printable.ts";
import { controlPath } from "./socket-path.ts";
import type { NicSpec } from "./spec.ts";

/** Longer than a server takes to say that its NIC does not answer. */
const ANSWER_MS = 5000;
/** A NIC of eight queue pairs answers with 13 KiB. */
const MAX_ANSWER = 256 * 1024;
const MAX_HEADER = 8192;
const MAX_DEPTH = 16;

export interface AskOptions {
  /** For everything, from connect to the end of the answer. */
  readonly timeoutMs?: number;
  /** Whether a server of this user is asked at all. Default: any. */
  readonly trusts?: (uid: number) => boolean;
}

export interface Request {
  readonly method?: "GET" | "PUT" | "PATCH";
  /** Default: the NIC whose control socket it is. */
  readonly path?: string;
  readonly body?: unknown;
}

export interface Answer {
  readonly status: number;
  /** Of JSON, its strings fit for a terminal. */
  readonly body: unknown;
}

/** The listener belongs to a user who is not trusted: it was not asked. */
export class ForeignServer extends Error {
  constructor(uid: number) {
    super(`a server of user ${uid} listens there`);
  }
}

/** The server refused; the message is its own. */
export class Refused extends Error {}

/**
 * Asks the server at a control socket.
 * @throws Error if it times out, or its answer is not JSON
 */
export async function ask(
  path: string,
  { method = "GET", path: target = "/v1/nic", body }: Request = {},
  { timeoutMs = ANSWER_MS, trusts }: AskOptions = {},
): Promise<Answer> {
  const fd = connectUnix(path);
  const socket = new Socket({ fd });
  let late: Error | undefined;
  const deadline = setTimeout(() => {
    late = new Error(`timed out after ${timeoutMs} ms`);
    socket.destroy(late);
  }, timeoutMs);
  try {
    // Whose server it is, as the kernel saw it at its listen().
    const { uid } = peerCredentials(fd);
    if (trusts?.(uid) === false) throw new ForeignServer(uid);
    const text = body === undefined ? undefined : JSON.stringify(body);
    const response = await responseTo(socket, method, target, text);
    const answer = cleaned(JSON.parse(await textOf(response)), 0);
    return { status: response.statusCode ?? 0, body: answer };
  } catch (error) {
    throw late ?? error;
  } finally {
    clearTimeout(deadline);
    socket.on("error", () => {});
    socket.destroy();
  }
}

function responseTo(
  socket: Socket,
  method: string,
  path: string,
  body: string | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = {
      host: "localhost",
      connection: "close",
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    };
    const request = httpRequest(
      { createConnection: () => socket, method, path, headers, maxHeaderSize: MAX_HEADER },
      resolve,
    );
    request.on("error", (error) => reject(explained(error)));
    request.end(body);
  });
}

/** Errors of Node's HTTP parser and sockets, as what they mean of the server. */
function explained(error: NodeJS.ErrnoException): Error {
  const { code = "" } = error;
  if (code === "HPE_HEADER_OVERFLOW") {
    return new Error(`its answer's header is longer than ${MAX_HEADER} bytes`);
  }
  if (code.startsWith("HPE_")) return new Error("its answer is not HTTP");
  if (code === "ECONNRESET" || code === "EPIPE") return new Error("it closed the connection");
  return error;
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > MAX_ANSWER) throw new Error(`its answer is longer than ${MAX_ANSWER} bytes`);
    }
  } catch (error) {
    throw explained(error as NodeJS.ErrnoException);
  }
  return Buffer.concat(chunks).toString();
}

/** A copy whose strings, names included, can be printed. */
function cleaned(value: unknown, depth: number): unknown {
  if (typeof value === "string") return printable(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth >= MAX_DEPTH) throw new Error("its answer is nested too deeply");
  if (Array.isArray(value)) return value.map((each) => cleaned(each, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [printable(name), cleaned(each, depth + 1)]),
  );
}

/** @throws Refused with the server's own words; Error as `ask` */
export async function askOrRefused(
  path: string,
  request: Request = {},
  options: AskOptions = {},
): Promise<Readonly<Record<string, unknown>>> {
  const { status, body } = await ask(path, request, options);
  const fields = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  if (typeof fields.error === "string") throw new Refused(fields.error);
  if (status !== 200) throw new Error(`it answers with status ${status} and no error`);
  return fields;
}

/** The status of the NIC on this socket, unchecked. */
export async function statusOf(socketPath: string): Promise<unknown> {
  return (await askOrRefused(controlPath(socketPath))).status;
}

/** Changes fields of the NIC on this socket. @returns its status, unchecked */
export async function changeSpec(socketPath: string, fields: Partial<NicSpec>): Promise<unknown> {
  const request = { method: "PATCH", body: fields } as const;
  return (await askOrRefused(controlPath(socketPath), request)).status;
}
