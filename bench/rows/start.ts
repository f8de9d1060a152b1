/**
 * How long `bpfhv serve` takes until it answers a client's version message: with an empty cache of
 * proved programs, and with the sets of an earlier start. Beside it: Node.js alone.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { FORMATS } from "../../src/devices/registry.ts";
import type { Bench, Result, Sample, SampleOptions } from "../harness/bench.ts";
import { digits, markdown } from "../harness/report.ts";
import { MAIN, message } from "../harness/server.ts";
import { median } from "../harness/statistics.ts";

const KINDS = ["first", "again"] as const;
const POLL_MS = 2;

/** Resolves once the server has answered; false if nothing listens yet. */
function isAnswered(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const client = connect(socket, () => client.write(message));
    const end = (answered: boolean) => () => {
      client.destroy();
      resolve(answered);
    };
    client.once("data", end(true)).once("error", end(false)).once("close", end(false));
  });
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await ended;
}

/** @returns milliseconds from the start of the process to its first answer */
async function start(device: string, folder: string): Promise<number> {
  const socket = join(folder, "nic.sock");
  const started = performance.now();
  const child = spawn(process.execPath, [MAIN, "serve", "--socket", socket, "--device", device], {
    env: { ...process.env, BPFHV_CACHE: join(folder, "cache") },
    stdio: ["ignore", "ignore", "inherit"],
  });
  while (!(await isAnswered(socket))) {
    if (child.exitCode !== null) throw new Error(`bpfhv serve ended with ${child.exitCode}`);
    await sleep(POLL_MS);
  }
  const took = performance.now() - started;
  await stop(child);
  return took;
}

function nodeAlone(): number {
  const started = performance.now();
  spawnSync(process.execPath, ["-e", "0"]);
  return performance.now() - started;
}

async function sample(device: string, { quick }: SampleOptions): Promise<Sample> {
  if (device === "node") {
    const times = Array.from({ length: quick ? 1 : 5 }, nodeAlone);
    return { values: { node: median(times) } };
  }
  const folder = mkdtempSync(join(tmpdir(), "start-"));
  try {
    const first = await start(device, folder);
    const again = await start(device, folder);
    return { values: { [`${device}/first`]: first, [`${device}/again`]: again } };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function table({ rows }: Result): string {
  const cell = (name: string): string => {
    const row = rows.find((each) => each.name === name);
    return row === undefined ? "-" : `${digits(row.value)} ms`;
  };
  const devices = FORMATS.map(({ name }) => [
    name,
    ...KINDS.map((kind) => cell(`${name}/${kind}`)),
  ]);
  return markdown([
    ["", "first start", "later starts"],
    ...devices,
    ["Node.js alone", cell("node"), cell("node")],
  ]);
}

export const bench: Bench = {
  name: "start",
  about: "milliseconds until bpfhv serve answers a client, without and with proved sets kept",
  rounds: 5,
  limit: 0.1,
  seconds: 30,
  parts: ["node", ...FORMATS.map(({ name }) => name)],
  rows: [
    { name: "node", unit: "ms" },
    ...FORMATS.flatMap(({ name }) =>
      KINDS.map((kind) => ({
        ...{ name: `${name}/${kind}`, unit: "ms", baseline: "node" },
        ...(kind === "again" ? { aim: { of: "value", most: 200 } as const } : {}),
      })),
    ),
  ],
  sample,
  tables: { "": table },
};
