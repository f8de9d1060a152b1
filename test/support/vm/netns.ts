/**
 * Network namespaces with TAP interfaces: the host side of a guest's NIC, separate from the
 * machine's own network.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { onExit } from "./cleanup.ts";

const PREFIX = "bpfhv";
/** Time limit of `ip` and `sysctl`. */
const COMMAND_MS = 10_000;

export interface TapAddress {
  /** Interface name, up to 15 bytes. */
  readonly name: string;
  /** Address with its prefix length: "10.99.0.1/24". */
  readonly address: string;
  /** Bytes; the kernel's default is 1500. */
  readonly mtu?: number;
  readonly multiQueue?: boolean;
}

let made = 0;

/** A namespace of this process, which `close` or the end of the process removes. */
export class Netns {
  readonly name: string;
  readonly #children = new Set<ChildProcess>();
  readonly #forget: () => void;
  #closed = false;

  private constructor(name: string) {
    this.name = name;
    ip("netns", "add", name);
    this.#forget = onExit(() => this.#remove());
    ip("-n", name, "link", "set", "lo", "up");
    // Neighbour and router discovery would add unrelated packets to the counts.
    this.exec(["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 || true"]);
  }

  /** `label` distinguishes several of one process. */
  static make(label = "ns"): Netns {
    removeOrphans();
    return new Netns(`${PREFIX}-${process.pid}-${label}${made++}`);
  }

  /** Creates a persistent TAP with an address, up. The NIC or QEMU attaches to it by name. */
  addTap({ name, address, mtu, multiQueue }: TapAddress): void {
    const kind = ["mode", "tap", ...(multiQueue ? ["multi_queue"] : [])];
    ip("-n", this.name, "tuntap", "add", "dev", name, ...kind);
    ip("-n", this.name, "addr", "add", address, "dev", name);
    ip("-n", this.name, "link", "set", name, ...(mtu ? ["mtu", String(mtu)] : []), "up");
  }

  /** Removes a TAP while a process is attached to it. */
  removeTap(name: string): void {
    ip("-n", this.name, "link", "del", name);
  }

  /**
   * Runs a program inside to its end and returns its output. @throws its error output if it fails
   */
  exec(words: readonly string[], timeoutMs = COMMAND_MS): string {
    return execFileSync("ip", ["netns", "exec", this.name, ...words], {
      encoding: "utf8",
      timeout: timeoutMs,
      stdio: ["ignore", "pipe", "pipe"],
      maxBuffer: 64 << 20,
    });
  }

  /**
   * Starts a program inside, which is killed when the namespace is closed, or this process ends.
   */
  spawn(words: readonly string[]): ChildProcess {
    const prefix = ["--pdeathsig", "KILL", "ip", "netns", "exec", this.name];
    const child = spawn("setpriv", [...prefix, ...words], { stdio: ["ignore", "pipe", "pipe"] });
    this.#children.add(child);
    child.once("close", () => this.#children.delete(child));
    child.once("error", () => this.#children.delete(child));
    return child;
  }

  close(): void {
    this.#forget();
    this.#remove();
  }

  #remove(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const child of this.#children) child.kill("SIGKILL");
    ip("netns", "del", this.name);
  }
}

function ip(...words: string[]): void {
  execFileSync("ip", words, { timeout: COMMAND_MS, stdio: ["ignore", "ignore", "pipe"] });
}

/** Removes namespaces of processes that were killed. */
function removeOrphans(): void {
  for (const name of namespaces()) {
    const pid = new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) ip("netns", "del", name);
  }
}

function namespaces(): string[] {
  try {
    return readdirSync("/run/netns");
  } catch {
    return [];
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
