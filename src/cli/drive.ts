/**
 * `bpfhv drive`: the machine's end of the bpfhv-proxy protocol, to try or to measure any backend.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, Option } from "commander";
import { validQueueBufs } from "../abi/index.ts";
import { requireShort } from "../control/socket-path.ts";
import { failure, Usage, whole } from "../errors.ts";
import { BackendError } from "../frontends/proxy/hypervisor.ts";
import { ProgramObjectError } from "../frontends/proxy/program-object.ts";
import { GuestError } from "../guest/ring.ts";
import { OsError } from "../os/errors.ts";
import { DEVICE_WORDS, loadDevice } from "./device-option.ts";
import { type DriveOptions, type DriveResult, drive } from "./drive-traffic.ts";

interface DriveFlags {
  socket?: string;
  device?: string;
  bufs: number;
  rxBufs?: number;
  txBufs?: number;
  duration: number;
  packets?: number;
  direction: DriveOptions["direction"];
  size: number;
  load: DriveOptions["load"];
  offloads: boolean;
  wait: number;
  json: boolean;
}

const bufs = (option: string) => whole(option, 16, 8192);
const packets = whole("--packets", 1, 1e12);
const patience = whole("--wait", 1, 3_600_000);

export function driveCommand(): Command {
  return new Command("drive")
    .description("send and receive packets through a backend, and verify each")
    .option("--socket <path>", "UNIX socket to listen on; a backend connects to it")
    .option("--device <name>", `start a backend of its own; ${DEVICE_WORDS}`)
    .option("--bufs <n>", "buffers per queue: a power of two, 16 to 8192", bufs("--bufs"), 256)
    .option("--rx-bufs <n>", "buffers of the receive queue", bufs("--rx-bufs"))
    .option("--tx-bufs <n>", "buffers of the transmit queue", bufs("--tx-bufs"))
    .option("--duration <s>", "seconds of traffic", seconds, 5)
    .option("--packets <n>", "stop after this many packets sent", packets)
    .addOption(
      new Option("--direction <which>", "what the guest does: send (tx), only receive (rx), both")
        .choices(["tx", "rx", "both"])
        .default("both"),
    )
    .option(
      "--size <bytes>",
      "length of sent frames, 60 to 1514; 0: all lengths in turn",
      whole("--size", 0, 1514),
      60,
    )
    .addOption(
      new Option("--load <kind>", "full, or changing: bursts, single packets, pauses")
        .choices(["full", "changing"])
        .default("full"),
    )
    .option("--offloads", "negotiate all that the backend offers, and send every kind of it", false)
    .option("--wait <ms>", "how long to wait for a backend", patience, 10_000)
    .option("--json", "as JSON", false)
    .action((flags: DriveFlags) => run(flags));
}

function seconds(text: string): number {
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value > 0 && value <= 86_400) return value;
  throw new Usage(`--duration ${text}: use seconds, up to 86400`);
}

/** @throws Usage */
function driveOptions(flags: DriveFlags, socket: string): DriveOptions {
  const rxBufs = flags.rxBufs ?? flags.bufs;
  const txBufs = flags.txBufs ?? flags.bufs;
  for (const bufs of [rxBufs, txBufs]) {
    if (!validQueueBufs(bufs)) throw new Usage(`${bufs} buffers: a power of two, 16 to 8192`);
  }
  requireShort("--socket", socket);
  const { size } = flags;
  if (size !== 0 && (size < 60 || size > 1514)) throw new Usage(`--size ${size}: 0, or 60 to 1514`);
  return {
    ...{ socket, rxBufs, txBufs, size },
    ...{ seconds: flags.duration, direction: flags.direction, load: flags.load },
    offloads: flags.offloads,
    packets: flags.packets ?? Number.POSITIVE_INFINITY,
    waitMs: flags.wait,
  };
}

async function run(flags: DriveFlags): Promise<void> {
  const { device, socket } = flags;
  if (device === undefined) {
    if (socket === undefined) throw new Usage("give --socket, or --device");
    report(driven(driveOptions(flags, socket)), flags);
    return;
  }
  await loadDevice(device);
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-drive-"));
  const options = driveOptions(flags, socket ?? join(folder, "s"));
  const backend = startBackend(device, options);
  try {
    report(driven(options), flags);
  } finally {
    backend.kill("SIGTERM");
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A process that sends back what it gets; to a guest that only receives, it sends its own. */
function startBackend(device: string, options: DriveOptions): ChildProcess {
  const main = fileURLToPath(new URL("./main.js", import.meta.url));
  const port = options.direction === "rx" ? "source" : "loopback";
  const words = ["backend", "-p", options.socket, "-d", device, "-b", port];
  if (options.offloads) words.push("--gso");
  return spawn(process.execPath, [main, ...words], { stdio: ["ignore", "ignore", "inherit"] });
}

/** @throws CommandError if a packet was lost or changed */
function report(result: DriveResult, flags: DriveFlags): void {
  process.stdout.write(flags.json ? `${JSON.stringify(result, null, 2)}\n` : describe(result));
  const { wrong, outOfOrder, stalls } = result;
  if (wrong + outOfOrder + stalls > 0) {
    throw failure(`${wrong} packets changed, ${outOfOrder} out of order, ${stalls} stalls`);
  }
}

function driven(options: DriveOptions): DriveResult {
  try {
    return drive(options);
  } catch (error) {
    const expected =
      error instanceof BackendError ||
      error instanceof GuestError ||
      error instanceof OsError ||
      error instanceof ProgramObjectError;
    throw expected ? failure(error.message) : error;
  }
}

/** For people, at most 80 columns. */
export function describe(r: DriveResult): string {
  const cell = (value: number): string => String(Math.round(value)).padStart(12);
  return [
    `${r.seconds.toFixed(1)} s of traffic`,
    `  sent      ${cell(r.sent)} packets ${cell(r.sentPps)} a second`,
    `  completed ${cell(r.completed)}         ${cell(r.reclaimed)} came back unsent`,
    `  received  ${cell(r.received)} packets ${cell(r.receivedPps)} a second`,
    `  verified  ${cell(r.received - r.foreign - r.wrong)}         ${cell(r.foreign)} without a number`,
    `  metadata  ${cell(r.withMetadata)} with ${r.features.join(" ") || "no features"}`,
    `  wrong     ${cell(r.wrong)}         ${cell(r.outOfOrder)} out of order`,
    `  kicks     ${cell(r.kicks)}         ${cell(r.interrupts.rx + r.interrupts.tx)} interrupts`,
    `  stalls    ${cell(r.stalls)}`,
    "",
  ].join("\n");
}
