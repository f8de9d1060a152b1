/**
 * The control socket of a running `bpfhv serve`: `SOCKET.ctl`, one JSON request per line, one JSON answer
 * per line. Only its owner can open it.
 */
import { chmodSync, existsSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";

export const controlPath = (socketPath: string): string => `${socketPath}.ctl`;

export type Answer = (request: unknown) => Promise<unknown>;

const MAX_LINE = 65536;

/** Listens; a socket file left by a dead server is replaced (the NIC's own socket proves that it is dead). */
export async function serveControl(path: string, answer: Answer): Promise<Server> {
  if (existsSync(path)) unlinkSync(path);
  const server = createServer((socket) => {
    let pending = "";
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => {
      pending += chunk.toString();
      if (pending.length > MAX_LINE) socket.destroy();
      for (let end = pending.indexOf("\n"); end >= 0; end = pending.indexOf("\n")) {
        const line = pending.slice(0, end);
        pending = pending.slice(end + 1);
        void reply(line, answer).then((text) => socket.write(`${text}\n`));
      }
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  chmodSync(path, 0o600);
  return server;
}

async function reply(line: string, answer: Answer): Promise<string> {
  try {
    return JSON.stringify(await answer(JSON.parse(line)));
  } catch (error) {
    return JSON.stringify({ error: (error as Error).message });
  }
}

/** Asks a running server. Rejects where none answers within `timeoutMs`. */
export function askControl(path: string, request: unknown, timeoutMs = 3000): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = "";
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error("it does not answer")));
    socket.on("error", reject);
    socket.on("connect", () => socket.write(`${JSON.stringify(request)}\n`));
    socket.on("data", (chunk) => {
      text += chunk.toString();
      if (!text.includes("\n")) return;
      socket.end();
      resolve(JSON.parse(text));
    });
    socket.on("end", () => reject(new Error("it closed the connection")));
  });
}
