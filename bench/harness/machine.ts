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
  readonly stolen: number;
}

function cpuTime(): CpuTime {
  const [line] = readFileSync("/proc/stat", "utf8").split("\n");
  // user nice system idle iowait irq softirq steal; guest time is part of user time.
  const fields = line!.split(/\s+/).slice(1, 9).map(Number);
  return { total: fields.reduce((sum, each) => sum + each, 0), stolen: fields[7] ?? 0 };
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
    const steal = (after.stolen - before.stolen) / Math.max(1, after.total - before.total);
    const model = cpus()[0]?.model ?? "unknown";
    return {
      machine: {
        ...{ model, cpus: cpus().length, steal: rounded(steal) },
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
