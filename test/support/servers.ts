/** For tests: processes of `bpfhv serve`. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { statusOf } from "../../src/control/client.ts";
import { until } from "./os.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
/** Of the sockets; made for the first one. */
let folder: string | undefined;
const children = new Set<ChildProcess>();
let names = 0;

export interface Server {
  readonly child: ChildProcess;
  readonly socket: string;
  /** Exit status, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals | null>;
  readonly err: () => string;
}

export function newSocket(): string {
  folder ??= mkdtempSync(join(tmpdir(), "bpfhv-servers-"));
  return join(folder, `s${names++}`);
}

export interface StartOptions {
  readonly socket?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Words before "serve". */
  readonly before?: readonly string[];
}

/** Starts one; its socket is given unless it is another's. */
export function spawnServer(words: readonly string[], options: StartOptions = {}): Server {
  const socket = options.socket ?? newSocket();
  const own = options.socket === undefined ? ["--socket", socket] : [];
  const line = [...(options.before ?? []), "serve", ...own, "--log-json", ...words];
  const child = spawn(process.execPath, ["--enable-source-maps", MAIN, ...line], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, ...options.env },
  });
  children.add(child);
  let err = "";
  child.stderr.on("data", (chunk) => {
    err += chunk;
  });
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.once("close", (status, signal) => {
      children.delete(child);
      resolve(status ?? signal);
    });
  });
  return { child, socket, ended, err: () => err };
}

/** Starts one, and waits until it serves. @throws Error with what it says if it ends before */
export async function startServer(
  words: readonly string[],
  options: StartOptions = {},
): Promise<Server> {
  const server = spawnServer(words, options);
  let isOver = false;
  void server.ended.then(() => {
    isOver = true;
  });
  await until("the server serves", async () => {
    if (isOver) throw new Error(`the server has ended: ${server.err()}`);
    const status = (await statusOf(server.socket).catch(() => null)) as { pid: number } | null;
    return status?.pid === server.child.pid;
  });
  return server;
}

/** Ends what is left. */
export function closeServers(): void {
  for (const child of children) child.kill("SIGKILL");
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  folder = undefined;
}
