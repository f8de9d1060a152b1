/** `bpfhv set-port`: other ways for a running NIC's packets; the guest sees at most its link change. */
import { Command } from "commander";
import { PORT_KINDS, PortSpecError, parsePort } from "../net/create.ts";
import type { NicStatus } from "../nic/status.ts";
import { askControl, controlPath } from "./control-socket.ts";
import { failure, Usage } from "./errors.ts";

export function setPortCommand(): Command {
  return new Command("set-port")
    .description("change where a running NIC's packets go")
    .argument("<socket>", "the socket given to `bpfhv serve --socket`")
    .argument("<port>", PORT_KINDS)
    .action(setPort);
}

async function setPort(socket: string, net: string): Promise<void> {
  try {
    parsePort(net);
  } catch (error) {
    if (error instanceof PortSpecError) throw new Usage(error.message);
    throw error;
  }
  const answer = await ask(socket, net);
  if ("error" in answer) throw failure(`${answer.error} (the port stays as it was)`);
  process.stdout.write(`packets to ${answer.port}, link ${answer.link}\n`);
}

async function ask(socket: string, net: string): Promise<NicStatus | { error: string }> {
  try {
    const answer = await askControl(controlPath(socket), { kind: "set-port", net });
    return answer as NicStatus | { error: string };
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
    throw failure(`no NIC is served on ${socket} (${why}): start one with bpfhv serve`);
  }
}
