/**
 * Boots a guest and controls it: scripts through an agent port, QEMU through QMP, the console as
 * text. Every wait has a deadline. `close`, or the end of this process, ends everything.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { close as closeFd } from "../../../src/os/fd.ts";
import { openTap } from "../../../src/os/tap.ts";
import { detectAccelerator } from "../../../src/vm/accelerator.ts";
import * as guestParts from "../../../src/vm/guest-parts.ts";
import { composeInitrd, type GuestParts, moduleFiles } from "../../../src/vm/guest-parts.ts";
import type { InitramfsFile } from "../../../src/vm/initramfs.ts";
import { type Device, qemuCommand, vfioUserDevice } from "../../../src/vm/qemu-command.ts";
import { Agent, type CommandResult } from "./agent.ts";
import { onExit } from "./cleanup.ts";
import { type Listening, listen } from "./lines.ts";
import { type QemuExit, QemuProcess } from "./qemu-process.ts";
import { Qmp, type QmpEvent } from "./qmp.ts";
import { GUEST_KERNEL, isDebugKernel, patience, within } from "./time.ts";

export { detectAccelerator } from "../../../src/vm/accelerator.ts";
export type { GuestParts } from "../../../src/vm/guest-parts.ts";
export type { CommandResult } from "./agent.ts";
export { isAlive, Netns, type TapAddress } from "./netns.ts";
export type { QemuExit } from "./qemu-process.ts";
export { DeadlineError, isDebugKernel, patience, sleep, until, within } from "./time.ts";

/** Prepares the parts of a guest, for the kernel of all tests or for another one. */
export function prepareGuest(suite = GUEST_KERNEL): Promise<GuestParts> {
  return guestParts.prepareGuest(suite);
}

export function buildModule(source?: string, suite = GUEST_KERNEL): Promise<string[]> {
  return guestParts.buildModule(source, suite);
}

/** A `virtio-net-pci` on a TAP, for comparison with our NIC. */
export interface VirtioNic {
  readonly tap: string;
  readonly netns: string;
  readonly mac: string;
  /** Checksum and segmentation offloads in both directions. Default: on. */
  readonly offloads?: boolean;
}

export interface GuestOptions {
  /** Sockets of running vfio-user servers, in PCI order. */
  readonly sockets?: readonly string[];
  /** For the sockets' devices: answer every write, as an original driver requires. */
  readonly originalDriver?: boolean;
  readonly virtioNics?: readonly VirtioNic[];
  /** Additional `-device`s. */
  readonly devices?: readonly Device[];
  /** Additional arguments for QEMU. */
  readonly qemuArguments?: readonly string[];
  /** Default 512. */
  readonly memoryMiB?: number;
  /** Default 1. */
  readonly smp?: number;
  /** .ko files that the guest's init loads, in order. */
  readonly modules?: readonly (string | { readonly path: string; readonly parameters?: string })[];
  /**
   * Path in the guest → content, or the path of a file on the
   * host. /extra/start runs before the agent.
   */
  readonly extraFiles?: Readonly<Record<string, string | Uint8Array>>;
  /**
   * Another kernel with its tools: a Debian suite (default:
   * that of BPFHV_GUEST_KERNEL, else trixie).
   */
  readonly suite?: string;
  /**
   * For a guest that suspends to memory: QEMU writes an unpacked kernel to memory again when the
   * machine resumes.
   */
  packedKernel?: boolean;
  /** Additional kernel parameters. */
  readonly append?: string;
  /** Default 60 s. */
  readonly bootTimeoutMs?: number;
}

const BOOT_MS = patience(60_000);
const COMMAND_MS = 30_000;
/** Time for QEMU to end after the request. */
const QUIT_MS = 5_000;
/**
 * An emulated CPU has no speculation to mitigate, but pays for it. The self-tests of the kernel's
 * cryptography take a sixth of a boot, and are not needed here.
 */
const KERNEL_LINE =
  "console=ttyS0 panic=1 quiet mitigations=off " +
  "cryptomgr.notests initcall_blacklist=jent_mod_init,crypto_kdf108_init";

/** Boots a guest and waits for its agent. */
export async function startGuest(options: GuestOptions = {}): Promise<Guest> {
  const parts = await prepareGuest(options.suite);
  const folder = mkdtempSync(join(tmpdir(), `bpfhv-vm-${process.pid}-`));
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  const forget = onExit(removeFolder);
  const release = () => {
    forget();
    removeFolder();
  };
  const taps: number[] = [];
  const ports: Listening[] = [];
  try {
    const agent = await listen(join(folder, "agent"));
    ports.push(agent);
    const qmp = await listen(join(folder, "qmp"));
    ports.push(qmp);
    for (const nic of options.virtioNics ?? []) taps.push(attachTap(nic));
    const command = await composeCommand(parts, options, agent.path, qmp.path);
    const qemu = new QemuProcess(command, taps);
    try {
      return await Guest.boot(qemu, agent, qmp, options.bootTimeoutMs ?? BOOT_MS, release);
    } catch (error) {
      qemu.kill();
      const { stderr } = await qemu.exit;
      const console = qemu.serial.slice(-2000);
      const message = error instanceof Error ? error.message : String(error);
      throw new Error(`guest did not boot: ${message}\nQEMU: ${stderr}\nconsole: ${console}`);
    }
  } catch (error) {
    for (const port of ports) port.close();
    release();
    throw error;
  } finally {
    for (const fd of taps) closeFd(fd);
  }
}

/** Opened here instead of by QEMU, so that each may be in another network namespace. */
function attachTap({ tap, netns }: VirtioNic): number {
  return openTap({ name: tap, netns, vnetHeader: 10, offloads: 0 }).fd;
}

async function composeCommand(
  parts: GuestParts,
  options: GuestOptions,
  agentPath: string,
  qmpPath: string,
): Promise<string[]> {
  const { sockets = [], virtioNics = [], originalDriver = false } = options;
  return qemuCommand({
    qemu: parts.qemu,
    accelerator: await detectAccelerator(parts),
    // An eighth of it is KASAN's own, and quarantine and leak records take more.
    memoryMiB: (options.memoryMiB ?? 512) * (isDebugKernel ? 2 : 1),
    cpus: options.smp ?? 1,
    boot: {
      kernel: options.packedKernel ? parts.kernel : parts.bootKernel,
      initrd: composeInitrd(parts, addedFiles(options)),
      append: `${KERNEL_LINE} ${options.append ?? ""}`.trim(),
    },
    devices: [
      ...sockets.map((path, i) => vfioUserDevice(path, { id: `nic${i}`, originalDriver })),
      ...virtioNics.map((nic, i) => virtioDevice(nic, i)),
      ...(options.devices ?? []),
    ],
    extra: [
      ...["-serial", "stdio"],
      ...["-chardev", `socket,id=agent,path=${agentPath}`, "-serial", "chardev:agent"],
      ...["-qmp", `unix:${qmpPath}`],
      ...virtioNics.flatMap((_, i) => ["-netdev", `tap,id=tap${i},fd=${3 + i},vhost=off`]),
      ...(options.qemuArguments ?? []),
    ],
  });
}

/** Features that a driver and QEMU negotiate besides plain frames. */
const VIRTIO_OFFLOADS = [
  ...["csum", "guest_csum", "gso", "host_tso4", "host_tso6", "host_ecn", "host_ufo", "host_uso"],
  ...["guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo", "guest_uso4", "guest_uso6"],
] as const;

function virtioDevice({ mac, offloads = true }: VirtioNic, index: number): Device {
  const off = offloads ? [] : VIRTIO_OFFLOADS.map((name) => [name, false] as const);
  return {
    driver: "virtio-net-pci",
    netdev: `tap${index}`,
    mac,
    romfile: "",
    ...Object.fromEntries(off),
  };
}

function addedFiles({ modules = [], extraFiles = {} }: GuestOptions): InitramfsFile[] {
  const list = modules.map((module) => (typeof module === "string" ? { path: module } : module));
  const files = Object.entries(extraFiles).map(([path, content]) => ({
    path,
    content: typeof content === "string" ? readFileSync(content) : content,
    executable: true,
  }));
  return [...(list.length > 0 ? moduleFiles(list) : []), ...files];
}

/** A running guest. */
export class Guest {
  readonly #qemu: QemuProcess;
  readonly #agent: Agent;
  readonly #qmp: Qmp;
  readonly #release: () => void;
  #closed = false;

  private constructor(qemu: QemuProcess, agent: Agent, qmp: Qmp, release: () => void) {
    this.#qemu = qemu;
    this.#agent = agent;
    this.#qmp = qmp;
    this.#release = release;
  }

  /** @internal Use `startGuest`. */
  static async boot(
    qemu: QemuProcess,
    agentPort: Listening,
    qmpPort: Listening,
    timeoutMs: number,
    release: () => void,
  ): Promise<Guest> {
    const died = qemu.exit.then(() => Promise.reject<never>(new Error("QEMU ended")));
    const connect = Promise.all([agentPort.accept(timeoutMs), qmpPort.accept(timeoutMs)]);
    const [agentSocket, qmpSocket] = await Promise.race([connect, died]);
    const guest = new Guest(qemu, new Agent(agentSocket), new Qmp(qmpSocket), () => {
      agentPort.close();
      qmpPort.close();
      release();
    });
    qemu.exit.then(() => guest.#agent.fail("QEMU ended"));
    await guest.qmp("qmp_capabilities");
    await guest.waitForBoot(1, timeoutMs);
    return guest;
  }

  get pid(): number {
    return this.#qemu.pid;
  }

  /** Number of times that the guest's init has started: 1 after `startGuest`. */
  get boots(): number {
    return this.#agent.boots;
  }

  /** Settles when QEMU ends; never rejects. */
  get exit(): Promise<QemuExit> {
    return this.#qemu.exit;
  }

  get ended(): boolean {
    return this.#qemu.ended;
  }

  /** QMP events so far. */
  get events(): readonly QmpEvent[] {
    return this.#qmp.events;
  }

  /** Returns the output of the guest's kernel and init. */
  serialLog(): string {
    return this.#qemu.serial;
  }

  /** Returns QEMU's standard error. */
  qemuLog(): string {
    return this.#qemu.stderr;
  }

  /**
   * Runs a shell script in the guest; status 137 after a timeout. Rejects if no
   * reply comes: the guest hangs, reboots, or QEMU ends. Start long-lived programs
   * like this: `iperf3 -s >/dev/null 2>&1 &`.
   */
  run(script: string, { timeoutMs = COMMAND_MS } = {}): Promise<CommandResult> {
    return this.#agent.run(script, patience(timeoutMs));
  }

  /** Runs a script and returns its output. A status other than 0 is an error. */
  async check(script: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { status, output } = await this.run(script, options);
    if (status !== 0) throw new Error(`in the guest: ${script}: status ${status}: ${output}`);
    return output;
  }

  /** Waits for text on the console; `from` is a position in `serialLog()`. */
  waitForSerial(pattern: RegExp, timeoutMs = COMMAND_MS, from = 0): Promise<RegExpExecArray> {
    return this.#qemu.waitForSerial(pattern, timeoutMs, from);
  }

  qmp(command: string, args: object = {}, timeoutMs = 10_000): Promise<unknown> {
    return this.#qmp.execute(command, args, timeoutMs);
  }

  /** Waits until init has started `count` times; rejects if QEMU ends first. */
  waitForBoot(count: number, timeoutMs = BOOT_MS): Promise<void> {
    const died = this.exit.then(() => Promise.reject<never>(new Error("QEMU ended")));
    const what = () => `boot ${count}; console: ${this.#qemu.serial.slice(-500)}`;
    return within(timeoutMs, what, Promise.race([this.#agent.booted(count), died]));
  }

  /** Reboots from within the guest: `reboot -f`, through firmware. */
  async reboot(timeoutMs = BOOT_MS): Promise<void> {
    const count = this.boots + 1;
    await this.check("(sleep 0.2; reboot -f) >/dev/null 2>&1 &");
    await this.waitForBoot(count, timeoutMs);
  }

  /** Resets the machine. */
  async reset(timeoutMs = BOOT_MS): Promise<void> {
    const count = this.boots + 1;
    await this.qmp("system_reset");
    await this.waitForBoot(count, timeoutMs);
  }

  /** Powers the guest off from within, which ends QEMU. */
  async powerOff(timeoutMs = BOOT_MS): Promise<QemuExit> {
    await this.check("(sleep 0.2; poweroff -f) >/dev/null 2>&1 &");
    return within(timeoutMs, "QEMU ends after the guest's power-off", this.exit);
  }

  /** Kills QEMU: this guest's process only. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<QemuExit> {
    this.#qemu.kill(signal);
    return within(QUIT_MS, `QEMU ends after ${signal}`, this.exit);
  }

  /** Ends QEMU in any way and removes its files. May be called again. */
  async close(): Promise<QemuExit> {
    if (!this.#closed) {
      this.#closed = true;
      if (!this.ended) await this.#quit();
      this.#release();
    }
    return this.exit;
  }

  async #quit(): Promise<void> {
    try {
      await this.qmp("quit", {}, QUIT_MS).catch(() => {});
      await within(QUIT_MS, "QEMU quits", this.exit);
    } catch {
      this.#qemu.kill();
      await within(QUIT_MS, "QEMU ends after SIGKILL", this.exit);
    }
  }
}
