/**
 * The client's end of a control socket, `SOCKET.ctl`: one JSON request per line, one JSON answer
 * per line. Whoever listens there may be hostile: the answer has a deadline, a length limit, and
 * comes without control characters.
 */
import { Socket } from "node:net";
import { connectUnix, peerCredentials } from "../os/unix-socket.ts";
import { printable } from "./printable.ts";

export const controlPath = (socketPath: string): string => `${socketPath}.ctl`;

/** Longer than a server takes to say that its NIC does not answer. */
const ANSWER_MS = 5000;
/** A NIC of eight queue pairs answers with 12 KiB. */
const MAX_ANSWER = 256 * 1024;
const MAX_DEPTH = 6;

export interface AskOptions {
  /** For everything, from connect to the end of the answer. */
  readonly timeoutMs?: number;
  /** Is a server of this user asked at all? Default: any. */
  readonly trusts?: (uid: number) => boolean;
}

/** The listener belongs to a user who is not trusted: it was not asked. */
export class ForeignServer extends Error {
  constructor(uid: number) {
    super(`a server of user ${uid} listens there`);
  }
}

/** Asks a running server. Rejects if it does not answer in time, or not in JSON. */
export async function askControl(
  path: string,
  request: unknown,
  { timeoutMs = ANSWER_MS, trusts }: AskOptions = {},
): Promise<unknown> {
  const fd = connectUnix(path);
  const socket = new Socket({ fd });
  socket.on("error", () => {});
  const deadline = setTimeout(
    () => socket.destroy(new Error(`it does not answer within ${timeoutMs} ms`)),
    timeoutMs,
  );
  try {
    // Whose server it is, as the kernel saw it at its listen().
    const { uid } = peerCredentials(fd);
    if (trusts?.(uid) === false) throw new ForeignServer(uid);
    socket.write(`${JSON.stringify(request)}\n`);
    return cleaned(JSON.parse(await firstLine(socket)), 0);
  } finally {
    clearTimeout(deadline);
    socket.destroy();
  }
}

async function firstLine(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    const end = chunk.indexOf(0x0a);
    chunks.push(end < 0 ? chunk : chunk.subarray(0, end));
    length += chunk.length;
    if (length > MAX_ANSWER) throw new Error(`its answer is longer than ${MAX_ANSWER} bytes`);
    if (end >= 0) return Buffer.concat(chunks).toString();
  }
  throw new Error("it closed the connection");
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
