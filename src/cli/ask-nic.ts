/** Questions to a running NIC, and changes of it, by its control socket. */
import type { NicStatus } from "../nic/status.ts";
import { askControl, controlPath } from "./control-socket.ts";
import { failure } from "./errors.ts";

/**
 * @param otherwise what is so where the NIC says no
 * @returns the NIC behind the change
 * @throws CommandError where it says no, or is not there
 */
export async function changeNic(
  socket: string,
  request: { readonly kind: string; readonly [field: string]: unknown },
  otherwise: string,
): Promise<NicStatus> {
  const answer = (await askNic(socket, request)) as NicStatus | { error: string };
  if ("error" in answer) throw failure(`${answer.error} (${otherwise})`);
  return answer;
}

/** @throws CommandError where no NIC answers */
export async function askNic(socket: string, request: unknown): Promise<unknown> {
  try {
    return await askControl(controlPath(socket), request);
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
    throw failure(`no NIC is served on ${socket} (${why}): start one with bpfhv serve`);
  }
}
