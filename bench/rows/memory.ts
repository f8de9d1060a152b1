/**
 * Resident memory of `bpfhv serve` with one NIC, and of each further one of the same process (and
 * VM), started with proved programs kept. Every NIC has moved packets both ways, so that its loop
 * is compiled. Guests' memory does not count.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { FORMATS } from "../../src/devices/registry.ts";
import { GuestDriver } from "../../src/guest/driver.ts";
import { LocalMemory } from "../../src/guest/memory.ts";
import { VfioUserClient } from "../../src/guest/vfio-user-client.ts";
import type { Bench, Result, Sample, SampleOptions } from "../harness/bench.ts";
import { markdown } from "../harness/report.ts";
import { MAIN, residentMiB } from "../harness/server.ts";

const FURTHER = 3;
const WAIT_MS = 30_000;

/** Connects as soon as the server accepts clients, which is a little after its socket is there. */
async function attach(
  socket: string,
  memory: LocalMemory,
  server: ChildProcess,
): Promise<VfioUserClient> {
  const until = performance.now() + WAIT_MS;
  for (;;) {
    try {
      return new VfioUserClient(socket, memory, 3);
    } catch (error) {
      if (server.exitCode !== null) throw new Error(`bpfhv serve ended with ${server.exitCode}`);
      if (performance.now() > until) throw error;
      await sleep(10);
    }
  }
}

/** Moves packets both ways for a while. */
async function move(socket: string, milliseconds: number, server: ChildProcess): Promise<void> {
  const memory = new LocalMemory(16 << 20);
  const client = await attach(socket, memory, server);
  try {
    const driver = new GuestDriver(client, memory);
    driver.open();
    const frame = new Uint8Array(60);
    let received = 0;
    const until = performance.now() + milliseconds;
    while (performance.now() < until || received === 0) {
      for (let i = 0; i < 32 && driver.send(0, frame); i++);
      driver.receive(0, () => received++);
      driver.clean(0);
      if (performance.now() > until + WAIT_MS) throw new Error(`${socket}: no packet came`);
      await sleep(1);
    }
  } finally {
    client.close();
    memory.close();
  }
}

/** @returns resident MiB of a server of so many NICs */
async function serve(device: string, nics: number, milliseconds: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "memory-"));
  const sockets = Array.from({ length: nics }, (_, i) => join(folder, `n${i}`));
  const config = sockets.map(
    (path) => `[[nic]]\nsocket = "${path}"\ndevice = "${device}"\nport = "source"\n`,
  );
  writeFileSync(join(folder, "nics.toml"), config.join("\n"));
  const child = spawn(process.execPath, [MAIN, "serve", "--config", join(folder, "nics.toml")], {
    env: { ...process.env, BPFHV_CACHE: join(tmpdir(), "memory-cache") },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  try {
    for (const socket of sockets) await move(socket, milliseconds, child);
    return residentMiB(child.pid!);
  } finally {
    child.kill("SIGTERM");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  }
}

async function sample(device: string, { quick }: SampleOptions): Promise<Sample> {
  const milliseconds = quick ? 100 : 600;
  // Proves the programs and keeps them: later starts do not load the compiler, and are alike.
  await serve(device, 1, 0);
  const before = await serve(device, 1, milliseconds);
  const several = await serve(device, 1 + FURTHER, milliseconds);
  const after = await serve(device, 1, milliseconds);
  const one = (before + after) / 2;
  const further = (several - one) / FURTHER;
  return {
    values: { [`${device}/first`]: one, [`${device}/each further`]: further },
    controls: { [`${device}, one NIC`]: [before, after] },
  };
}

function table({ rows }: Result): string {
  const cell = (name: string): string =>
    rows.find((row) => row.name === name)?.value.toFixed(1) ?? "-";
  return markdown([
    ["ring format", "1 NIC, MiB", "each further one, MiB"],
    ...FORMATS.map(({ name }) => [name, cell(`${name}/first`), cell(`${name}/each further`)]),
  ]);
}

export const bench: Bench = {
  name: "memory",
  about: "resident MiB of bpfhv serve with one NIC, and of each further one",
  steady: true,
  rounds: 3,
  limit: 0.05,
  seconds: 90,
  parts: FORMATS.map(({ name }) => name),
  rows: FORMATS.flatMap(({ name }) => [
    { name: `${name}/first`, unit: "MiB", control: `${name}, one NIC` },
    {
      ...{ name: `${name}/each further`, unit: "MiB", control: `${name}, one NIC` },
      aim: { of: "value", most: 12 } as const,
    },
  ]),
  sample,
  tables: { "": table },
};
