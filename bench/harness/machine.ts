/** What a figure depends on besides the code. */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, loadavg, release } from "node:os";
import { fileURLToPath } from "node:url";
import type { Header } from "./bench.ts";
import { rounded } from "./statistics.ts";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

interface CpuTime {
  readonly total: number;
  readonly busy: number;
  readonly stolen: number;
  /** Of this process and of those that it has waited for. */
  readonly own: number;
}

function cpuTime(): CpuTime {
  const [line] = readFileSync("/proc/stat", "utf8").split("\n");
  // user nice system idle iowait irq softirq steal; guest time is part of user time.
  const fields = line!.split(/\s+/).slice(1, 9).map(Number);
  const [, , , idle, waiting, , , stolen] = fields as [number, ...number[]];
  const total = fields.reduce((sum, each) => sum + each, 0);
  // utime, stime, cutime and cstime, in the same ticks (proc_pid_stat(5)).
  const words = readFileSync("/proc/self/stat", "utf8").split(") ").at(-1)!.split(" ");
  const own = words.slice(11, 15).reduce((sum, each) => sum + Number(each), 0);
  return { total, busy: total - idle! - waiting! - stolen!, stolen: stolen!, own };
}

/** Share of the CPUs' time beyond which a run with other load, or a busy host, does not count. */
const MOST_DISTURBED = 0.15;

/** Says why a measurement of time does not count on a machine as busy as that; null if it does. */
export function disturbance({ others, steal }: Header["machine"]): string | null {
  if (others + steal <= MOST_DISTURBED) return null;
  const share = (part: number): string => `${(100 * part).toFixed(1)} %`;
  return (
    `other processes used ${share(others)} of the CPUs' time, and the host took ${share(steal)}: ` +
    `together at most ${share(MOST_DISTURBED)}`
  );
}

export function revision(root = ROOT): string {
  const git = (...words: string[]) =>
    spawnSync("git", ["-C", root, ...words], { encoding: "utf8" }).stdout?.trim() ?? "";
  const hash = git("rev-parse", "--short=12", "HEAD");
  if (hash === "") return "unknown";
  // What a run writes itself does not change what it measures.
  const changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!*.md");
  const others = changed
    .split("\n")
    .filter((line) => line !== "" && !/bench\/results\//.test(line));
  return others.length === 0 ? hash : `${hash}-dirty`;
}

/** Begins to watch the machine. Call the result at the end of the run. */
export function watchMachine(): () => Pick<Header, "machine" | "node" | "v8"> {
  const before = cpuTime();
  const [startLoad] = loadavg();
  return () => {
    const after = cpuTime();
    const total = Math.max(1, after.total - before.total);
    const steal = (after.stolen - before.stolen) / total;
    const others = (after.busy - before.busy - (after.own - before.own)) / total;
    const model = cpus()[0]?.model ?? "unknown";
    return {
      machine: {
        ...{ model, cpus: cpus().length, steal: rounded(steal) },
        others: rounded(Math.max(0, others)),
        load: [rounded(startLoad!), rounded(loadavg()[0]!)],
        kernel: release(),
      },
      node: process.versions.node,
      v8: process.versions.v8,
    };
  };
}

/** QEMU's version and accelerator, for benches with a guest. */
export async function guestFacts(): Promise<{ qemu: string; accelerator: string }> {
  const { detectAccelerator, prepareGuest } = await import("../../test/support/vm/harness.ts");
  const parts = await prepareGuest();
  const text = execFileSync(parts.qemu, ["--version"], { encoding: "utf8" });
  const qemu = /version (\S+)/.exec(text)?.[1] ?? "unknown";
  return { qemu, accelerator: await detectAccelerator(parts) };
}
