/**
 * A UNIX socket that waits for QEMU to connect: the harness listens first, so there is no race with
 * its start.
 */
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { within } from "./time.ts";

export interface Listening {
  readonly path: string;
  /** The one connection. */
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
