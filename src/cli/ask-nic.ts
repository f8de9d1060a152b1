/** Asks the NIC on a socket, for commands; what goes wrong is one line. */
import { type AskOptions, askOrRefused, Refused, type Request } from "../control/client.ts";
import { readNic, type ServedNic } from "../control/nic-answer.ts";
import { controlPath } from "../control/socket-path.ts";
import { failure } from "../errors.ts";

/** @throws CommandError if no NIC answers, or what answers is none */
export async function askNic(socket: string): Promise<ServedNic> {
  const { status } = await request(socket, {});
  return checked(socket, status);
}

/** What a server answers that did what it was asked. @throws CommandError */
export async function request(
  socket: string,
  what: Request,
  options: AskOptions = {},
): Promise<Readonly<Record<string, unknown>>> {
  try {
    return await askOrRefused(controlPath(socket), what, options);
  } catch (error) {
    if (error instanceof Refused) throw failure(error.message);
    throw failure(unreached(socket, error as NodeJS.ErrnoException));
  }
}

/** @throws CommandError if it is not a NIC's status */
export function checked(socket: string, status: unknown): ServedNic {
  try {
    return readNic(status);
  } catch (error) {
    throw failure(`${controlPath(socket)}: ${(error as Error).message}`);
  }
}

function unreached(socket: string, { code, message }: NodeJS.ErrnoException): string {
  if (code === "EACCES") {
    const path = controlPath(socket);
    return `cannot connect to ${path}: permission denied; ask as root or as the server's user`;
  }
  // A server listens, or too many have asked.
  if (code === undefined || code === "EAGAIN") return `${controlPath(socket)}: ${message}`;
  return `no NIC is served on ${socket} (${code}): start one with bpfhv serve`;
}
