/** `bpfhv vm` for its user: a shell in the guest, a NIC in it, an orderly end. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { onExit } from "../support/vm/cleanup.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { withoutVm } from "../support/vm/requirements.ts";
import { until, within } from "../support/vm/time.ts";

const skip = await withoutVm();
const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const BOOT_MS = 60_000;
const END_MS = 15_000;

class VmCommand {
  readonly exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  readonly child: ChildProcess;
  console = "";

  constructor(socket: string) {
    this.child = spawn(process.execPath, [MAIN, "vm", "--socket", socket, "--memory", "256M"]);
    const forget = onExit(() => this.child.kill("SIGTERM"));
    for (const stream of [this.child.stdout!, this.child.stderr!]) {
      stream.on("data", (chunk) => {
        this.console += chunk;
      });
    }
    this.exit = new Promise((resolve) => {
      this.child.once("exit", (code, signal) => {
        forget();
        resolve({ code, signal });
      });
    });
  }

  say(line: string): void {
    this.child.stdin!.write(`${line}\n`);
  }

  async see(pattern: RegExp, timeoutMs = END_MS): Promise<void> {
    await until(timeoutMs, `${pattern} on the console`, () => pattern.test(this.console));
  }
}

/** Returns the process ids of QEMUs that use this socket. */
function qemusOf(socket: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return words.some((word) => word.includes("vfio-user-pci") && word.includes(socket));
    } catch {
      return false; // It has ended meanwhile.
    }
  });
}

describe("bpfhv vm", { skip, timeout: 150_000 }, () => {
  let nic: ServedNic;
  before(async () => {
    nic = await ServedNic.start("--net", "sink");
  });
  after(() => nic?.stop());

  test("opens a shell in a guest with the NIC, and ends QEMU in order at its exit", async () => {
    const vm = new VmCommand(nic.socket);
    await vm.see(/\/ # /, BOOT_MS);
    vm.say("ethtool -i eth0; echo left=$?");
    await vm.see(/driver: bpfhv[\s\S]*left=0/);
    vm.say("exit");
    assert.deepEqual(await within(END_MS, "the command's end", vm.exit), { code: 0, signal: null });
    assert.deepEqual(qemusOf(nic.socket), []);
  });

  test("ends QEMU on SIGTERM", async () => {
    const vm = new VmCommand(nic.socket);
    await until(BOOT_MS, "QEMU to start", async () => {
      return qemusOf(nic.socket).length === 1 && (await nic.status()).step !== "no guest";
    });
    vm.child.kill("SIGTERM");
    await within(END_MS, "the command's end", vm.exit);
    assert.deepEqual(qemusOf(nic.socket), []);
  });

  test("exits with status 1 and one line when QEMU refuses its arguments", async () => {
    const words = ["vm", "--socket", nic.socket, "--", "-device", "no-such-device"];
    const child = spawn(process.execPath, [MAIN, ...words], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let stderr = "";
    child.stderr.on("data", (chunk) => {
      stderr += chunk;
    });
    const code = new Promise((resolve) => child.once("close", resolve));
    assert.equal(await within(BOOT_MS, "the command's end", code), 1);
    assert.match(stderr, /no-such-device/);
    assert.match(stderr, /^bpfhv: QEMU failed with status 1: see its message above$/m);
  });
});
