/**
 * Finds and asks the NICs of this machine. Any local user may listen at a path that looks like a
 * NIC's.
 */
import { readFileSync } from "node:fs";
import { askOrRefused, ForeignServer } from "../control/client.ts";
import { readNic } from "../control/nic-answer.ts";
import { printable } from "../control/printable.ts";
import { controlPath, CONTROL_SUFFIX as SUFFIX } from "../control/socket-path.ts";
import type { Look } from "./top-view.ts";

/** A NIC that takes longer is shown the next time. */
const ANSWER_MS = 500;

export interface Found {
  /** By control socket. */
  readonly looks: ReadonlyMap<string, Look>;
  /** Why there is nothing of a NIC that was asked for, or of a server that we trust. */
  readonly problems: readonly string[];
  /** Servers of other users: they are not asked unless named. */
  readonly foreign: number;
}

/** What one control socket came to. */
type Outcome = Look | { readonly problem: string } | "foreign" | "gone";

/** @param sockets those of NICs; none: all of the machine whose server is ours, or root's */
export async function lookAtNics(sockets: readonly string[]): Promise<Found> {
  const named = sockets.length > 0;
  const paths = named ? [...new Set(sockets)].map(controlPath) : controlSockets();
  const looks = new Map<string, Look>();
  const problems: string[] = [];
  let foreign = 0;
  for (const [i, outcome] of (await Promise.all(paths.map((path) => ask(path, named)))).entries()) {
    if (outcome === "foreign") foreign++;
    else if (outcome !== "gone" && "nic" in outcome) looks.set(paths[i], outcome);
    else if (outcome !== "gone") problems.push(outcome.problem);
  }
  return { looks, problems, foreign };
}

async function ask(path: string, named: boolean): Promise<Outcome> {
  try {
    const trusts = named ? undefined : (uid: number) => uid === 0 || uid === process.getuid?.();
    const { status } = await askOrRefused(path, {}, { timeoutMs: ANSWER_MS, trusts });
    // The path that was asked, not the one that the answer claims.
    const socket = printable(path.slice(0, -SUFFIX.length));
    return { at: performance.now(), nic: { ...readNic(status), socket } };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (!named) {
      if (error instanceof ForeignServer || code === "EACCES") return "foreign";
      if (code === "ENOENT" || code === "ECONNREFUSED") return "gone";
    }
    const missing = code === "ENOENT" || code === "ECONNREFUSED";
    const why = missing ? `no NIC is served there (${code})` : message;
    return { problem: printable(`${path.slice(0, -SUFFIX.length)}: ${why}`, 200) };
  }
}

/** Sockets that listen on this machine (network namespace) and are named as control sockets are. */
export function controlSockets(table = readFileSync("/proc/net/unix", "utf8")): string[] {
  const paths = table
    .split("\n")
    .map((line) => /^\S+ \S+ \S+ 00010000 0001 \S+ +\d+ (\/.*)$/.exec(line)?.[1])
    .filter((path) => path?.endsWith(SUFFIX));
  return [...new Set(paths as string[])].sort();
}
