/** `bpfhv set-mtu`: another MTU for a running NIC; its guest is told. */
import { Command } from "commander";
import { changeNic } from "./ask-nic.ts";
import { Usage } from "./errors.ts";

export function setMtuCommand(): Command {
  return new Command("set-mtu")
    .description("change the largest MTU that a running NIC's guest may use; the guest follows")
    .argument("<socket>", "the socket given to `bpfhv serve --socket`")
    .argument("<bytes>", "at most what `bpfhv serve --mtu` was given")
    .action(setMtu);
}

async function setMtu(socket: string, bytes: string): Promise<void> {
  if (!/^\d{1,5}$/.test(bytes)) throw new Usage(`MTU ${bytes}: give a number of bytes`);
  const request = { kind: "set-mtu", mtu: Number(bytes) };
  const { mtu } = await changeNic(socket, request, "the MTU stays as it was");
  process.stdout.write(`MTU ${mtu}\n`);
}
