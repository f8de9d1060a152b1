/**
 * A UNIX socket that QEMU connects to. The harness listens
 * first, so there is no race with QEMU's start.
 */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { within } from "./time.ts";

export interface Listening {
  readonly path: string;
  /** Accepts the only connection. */
  accept(timeoutMs: number): Promise<Socket>;
  close(): void;
}

export async function listen(path: string): Promise<Listening> {
  const server = createServer();
  const connection = new Promise<Socket>((resolve) => server.once("connection", resolve));
  server.listen(path);
  await once(server, "listening");
  return {
    path,
    accept: (timeoutMs) => within(timeoutMs, `QEMU connects to ${path}`, connection),
    close() {
      server.close();
      connection.then((socket) => socket.destroy());
    },
  };
}
