/** What `status` shows of a message that was refused. */
import { errnoName } from "../os/errors.ts";
import type { MessageStream } from "./framing.ts";
import { COMMAND, HEADER } from "./protocol.ts";

const COMMAND_NAMES = new Map<number, string>(
  Object.entries(COMMAND).map(([name, number]) => [number, name]),
);
/** Bytes of a refused message that are shown. */
const NOTED_BYTES = 40;

/** Describes the stream's current message. */
export function describeRefused(
  stream: MessageStream,
  command: number,
  fds: number,
  errno: number,
): string {
  const name = COMMAND_NAMES.get(command) ?? `command ${command}`;
  const start = stream.at + HEADER.SIZE;
  const end = Math.min(stream.at + stream.size, start + NOTED_BYTES);
  const payload = Buffer.from(stream.bytes.subarray(start, end)).toString("hex");
  return `${name} [${payload}] with ${fds} descriptors: ${errnoName(errno)}`;
}
