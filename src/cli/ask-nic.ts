/** Questions to a running NIC, and changes of it, by its control socket. */

import { failure } from "../errors.ts";
import { askControl, controlPath } from "./control-socket.ts";
import { readNic, type ServedNic } from "./nic-answer.ts";

/**
 * @param otherwise the state that remains if the NIC refuses
 * @returns the NIC behind the change
 * @throws CommandError if it says no, or is not there
 */
export async function changeNic(
  socket: string,
  request: { readonly kind: string; readonly [field: string]: unknown },
  otherwise: string,
): Promise<ServedNic> {
  return asNic(socket, await ask(socket, request), ` (${otherwise})`);
}

/** @throws CommandError if no NIC answers */
export async function askNic(socket: string): Promise<ServedNic> {
  return asNic(socket, await ask(socket, { kind: "status" }), "");
}

async function ask(socket: string, request: unknown): Promise<unknown> {
  try {
    return await askControl(controlPath(socket), request);
  } catch (error) {
    throw failure(unreached(socket, error as NodeJS.ErrnoException));
  }
}

function unreached(socket: string, { code, message }: NodeJS.ErrnoException): string {
  if (code === "EACCES") {
    const path = controlPath(socket);
    return `cannot connect to ${path}: permission denied; ask as root or as the server's user`;
  }
  // Somebody listens, or too many have asked.
  if (code === undefined || code === "EAGAIN") return `${controlPath(socket)}: ${message}`;
  return `no NIC is served on ${socket} (${code}): start one with bpfhv serve`;
}

function asNic(socket: string, answer: unknown, otherwise: string): ServedNic {
  try {
    return readNic(answer);
  } catch (error) {
    if (isRefusal(answer)) throw failure(`${answer.error}${otherwise}`);
    throw failure(`${controlPath(socket)}: ${(error as Error).message}`);
  }
}

function isRefusal(answer: unknown): answer is { readonly error: string } {
  return typeof answer === "object" && answer !== null && "error" in answer;
}
