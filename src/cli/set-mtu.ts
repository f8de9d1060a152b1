/** `bpfhv set-mtu`: another MTU for a running NIC; its guest is told. */
import { Command } from "commander";
import { Usage } from "../errors.ts";
import { LINUX_MTU } from "../nic/config.ts";
import { changeNic } from "./ask-nic.ts";

export function setMtuCommand(): Command {
  return new Command("set-mtu")
    .description("change a running NIC's largest MTU; the guest follows a lower one")
    .argument("<socket>", "the socket given to `bpfhv serve --socket`")
    .argument("<bytes>", "at most what `bpfhv serve --mtu` was given")
    .action(setMtu);
}

async function setMtu(socket: string, bytes: string): Promise<void> {
  if (!/^\d{1,5}$/.test(bytes)) throw new Usage(`MTU ${bytes}: give a number of bytes`);
  const request = { kind: "set-mtu", mtu: Number(bytes) };
  const before = await changeNic(socket, { kind: "status" }, "the MTU stays as it was");
  const { mtu } = await changeNic(socket, request, "the MTU stays as it was");
  process.stdout.write(`${mtuOutcome(before.mtu, mtu)}\n`);
}

/** What the guest makes of it: its driver follows down, and up it goes by its own administrator. */
export function mtuOutcome(before: number, mtu: number): string {
  const most = mtu > LINUX_MTU ? `; Linux guests with 4 KiB pages take ${LINUX_MTU} at most` : "";
  if (mtu <= before) return `MTU ${mtu}: the guest follows${most}`;
  const asked = Math.min(mtu, LINUX_MTU);
  const how = `raise it there: ip link set dev INTERFACE mtu ${asked}`;
  return `MTU ${mtu} at most: the guest stays at what it has, ${how}${most}`;
}
