/** `bpfhv status`: what a running NIC is doing, or why it is not. */
import { Command } from "commander";
import { DROP_COUNTERS } from "../devices/counters.ts";
import type { NicStatus } from "../nic/status.ts";
import { askNic } from "./ask-nic.ts";

type ServedNic = NicStatus & {
  pid: number;
  socket: string;
  /** What the host's verifier said of the programs, before they were offered. */
  proof: string;
};

export function statusCommand(): Command {
  return new Command("status")
    .description("show a running NIC: handshake, programs, counters")
    .argument("<socket>", "the socket given to `bpfhv serve --socket`")
    .option("--json", "as JSON", false)
    .action(async (socket: string, flags: { json: boolean }) => {
      const status = (await askNic(socket, { kind: "status" })) as ServedNic;
      const text = flags.json ? JSON.stringify(status, null, 2) : describe(status);
      process.stdout.write(`${text}\n`);
    });
}

/** For people, at most 80 columns. */
export function describe(status: ServedNic): string {
  const lines = [
    `${status.device} on ${status.socket} (pid ${status.pid}), packets to ${status.port}`,
    `  mac         ${status.mac}`,
    `  link        ${status.link}`,
    `  handshake   ${status.step}`,
    `  programs    ${status.programs} (generation ${status.generation})`,
    `  proof       ${status.proof}`,
    `  features    ${status.features.join(" ") || "none"}`,
  ];
  if (status.lastRefusal !== "") lines.push(`  refused     ${status.lastRefusal}`);
  lines.push("", "  queue      packets        bytes  batches    kicks interrupts    drops");
  for (const { queue, counters, broken } of status.queues) {
    const drops = DROP_COUNTERS.reduce((sum, name) => sum + counters[name], 0);
    lines.push(
      `  ${queue.padEnd(5)}${cell(counters.packets, 13)}${cell(counters.bytes, 13)}` +
        `${cell(counters.batches, 9)}${cell(counters.kicks, 9)}${cell(counters.interrupts, 11)}` +
        `${cell(drops, 9)}${broken ? " broken" : ""}`,
    );
  }
  return lines.join("\n");
}

function cell(value: number, width: number): string {
  return String(value).padStart(width);
}
