import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { WorkerHandle } from "./handle.ts";
import { WaitingWorker } from "./waiting-worker.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-worker-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const here = (name: string): string => JSON.stringify(new URL(name, import.meta.url).href);
const module = join(folder, "worker.mjs");
/** A worker that is busy for so many milliseconds when it is to stop. */
writeFileSync(
  module,
  `import { parentPort } from "node:worker_threads";
import { startPulse } from ${here("./pulse.js")};
import { takeTask } from ${here("./waiting-worker.js")};
const turns = startPulse();
const { busyMs } = takeTask(parentPort);
Atomics.store(turns, 0, 1);
parentPort.postMessage({ kind: "ready" });
parentPort.on("message", ({ verb }) => {
  if (verb !== "stop") return;
  for (const end = performance.now() + busyMs; performance.now() < end; );
  parentPort.postMessage({ kind: "stopped" });
  parentPort.close();
});
`,
);

interface Busy {
  readonly handle: WorkerHandle<{ readonly busyMs: number }>;
  readonly thread: number;
}

async function busy(busyMs: number): Promise<Busy> {
  const worker = new WaitingWorker(pathToFileURL(module));
  const handle = new WorkerHandle({ name: "busy", task: { busyMs }, worker, log: () => {} });
  await handle.started();
  return { handle, thread: worker.pulse[1] };
}

/** Two programs that leave next to nothing of CPU 0 to a thread. */
function starve(thread: number): ChildProcess[] {
  execFileSync("taskset", ["-p", "-c", "0", `${thread}`]);
  execFileSync("renice", ["-n", "19", "-p", `${thread}`]);
  const words = ["-c", "0", "sh", "-c", "while :; do :; done"];
  return [1, 2].map(() => spawn("taskset", words, { stdio: "ignore" }));
}

test("a worker that waits for a CPU longer than a stop may take stops in order", async () => {
  const { handle, thread } = await busy(1800);
  const others = starve(thread);
  try {
    await handle.stop();
  } finally {
    for (const child of others) child.kill("SIGKILL");
  }
});

test("a worker that computes longer than a stop may take is ended, and the stop fails", async () => {
  const { handle } = await busy(3600_000);
  await assert.rejects(handle.stop(), /did not stop: it was in no system call: it is computing/);
});
