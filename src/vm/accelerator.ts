/**
 * Detects the accelerator: /dev/kvm may exist without running a
 * stock guest, so a kernel is booted briefly.
 */
import { spawn } from "node:child_process";
import { accessSync, constants, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "../os/cache-folder.ts";
import type { GuestParts } from "./guest-parts.ts";
import type { Accelerator } from "./qemu-command.ts";

const PROBE_MS = 8000;

/** BPFHV_ACCEL=kvm or tcg overrides. The result is cached until the machine reboots. */
export async function detectAccelerator(
  parts: Pick<GuestParts, "qemu" | "kernel">,
): Promise<Accelerator> {
  const wanted = process.env.BPFHV_ACCEL;
  if (wanted === "kvm" || wanted === "tcg") return wanted;
  if (!isAccessible("/dev/kvm")) return "tcg";
  const memo = join(cacheFolder(), `accelerator-${bootId()}`);
  const known = readMemo(memo);
  if (known !== undefined) return known;
  const found = (await kvmBootsKernel(parts.qemu, parts.kernel)) ? "kvm" : "tcg";
  try {
    writeFileSync(memo, found);
  } catch {
    // The cache belongs to another user: probing again is the only cost.
  }
  return found;
}

/** Starts the kernel without a root file system: a working one reports that it is missing. */
function kvmBootsKernel(qemu: string, kernel: string): Promise<boolean> {
  return new Promise((resolve) => {
    const machine = ["-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "256"];
    const console = ["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
    const boot = ["-kernel", kernel, "-append", "console=ttyS0 panic=-1"];
    const child = spawn(qemu, [...machine, ...console, ...boot], {
      stdio: ["ignore", "pipe", "ignore"],
      timeout: PROBE_MS,
      killSignal: "SIGKILL",
    });
    let log = "";
    child.stdout.on("data", (chunk) => {
      log += chunk;
      if (log.includes("Unable to mount root")) child.kill("SIGKILL");
    });
    child.on("error", () => resolve(false));
    child.on("close", () => resolve(log.includes("Unable to mount root")));
  });
}

function isAccessible(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").slice(0, 8);
}

function readMemo(path: string): Accelerator | undefined {
  try {
    const text = readFileSync(path, "utf8");
    return text === "kvm" || text === "tcg" ? text : undefined;
  } catch {
    return undefined;
  }
}
