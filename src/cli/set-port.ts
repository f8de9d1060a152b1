/** `bpfhv set-port`: other ways for a running NIC's packets; the guest sees at most its link change. */
import { Command } from "commander";
import { Usage } from "../errors.ts";
import { PORT_KINDS, PortSpecError, parsePort } from "../net/create.ts";
import { changeNic } from "./ask-nic.ts";

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
  const answer = await changeNic(socket, { kind: "set-port", net }, "the port stays as it was");
  process.stdout.write(`packets to ${answer.port}, link ${answer.link}\n`);
}
