/** Raw vfio-user messages to a separate server process, over connections to its socket. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { GuestDriver } from "../../../src/guest/driver.ts";
import { LocalMemory } from "../../../src/guest/memory.ts";
import { VfioUserClient } from "../../../src/guest/vfio-user-client.ts";
import { EPOLLOUT, Epoll } from "../../../src/os/epoll.ts";
import { OsError } from "../../../src/os/errors.ts";
import { connectUnix } from "../../../src/os/unix-socket.ts";
import type { Random } from "../../support/ebpf-fuzz/random.ts";
import { frameOf, numberOf } from "../../support/guest.ts";
import { message, RawClient, VERSION_PAYLOAD } from "../../support/vfio-user.ts";
import { expect, Find, type Resources, type Session, type Target } from "../target.ts";
import { isAlive, ResourceLimit, resourcesOf } from "./resources.ts";
import { FD_KINDS, type FdKind, StrangeFds } from "./strange-fds.ts";
import { busMaster, damaged, setIrqs, vfioUserMessage } from "./vfio-user-messages.ts";

/** A message in hexadecimal, and its descriptors. */
type Step = readonly [hex: string, fds: readonly FdKind[]];
type Connection = readonly Step[];

const MAIN = fileURLToPath(new URL("../../../src/cli/main.js", import.meta.url));
const STEPS = 40;
const PACKETS = 8;
const DEADLINE_MS = 10_000;
/** The server releases descriptors of a closed connection in its next turn. */
const RELEASE_MS = 3000;
const WARM_UP_CHECKS = 20;

function generate(random: Random): Connection {
  const below = (limit: number): number => random.below(limit);
  const greets = !random.once(10);
  const steps: Step[] = greets ? [[message(1, VERSION_PAYLOAD).toString("hex"), []]] : [];
  // Without bus mastering no interrupts are sent.
  if (random.once(2)) steps.push([busMaster().toString("hex"), []]);
  for (let n = 1 + random.below(STEPS); n > 0; n--) {
    if (random.once(12)) steps.push(...interrupt(random));
    const bytes = damaged(vfioUserMessage(below), below);
    if (bytes.length === 0) continue;
    steps.push([bytes.toString("hex"), attached(random)]);
  }
  return steps;
}

/** Sets a vector's descriptor, then triggers it. */
function interrupt(random: Random): Step[] {
  const vector = random.below(5);
  const steps: Step[] = [[setIrqs(vector, "descriptors").toString("hex"), [random.pick(FD_KINDS)]]];
  if (!random.once(4)) steps.push([setIrqs(vector, "trigger").toString("hex"), []]);
  return steps;
}

function attached(random: Random): FdKind[] {
  if (random.once(2)) return [];
  const count = random.once(10) ? random.below(20) : random.below(4);
  // Mostly valid messages: those refused at once lead nowhere.
  return Array.from({ length: count }, () =>
    random.once(3) ? random.pick(FD_KINDS) : random.pick(["eventfd", "memfd"] as const),
  );
}

class ServerSession implements Session<Connection> {
  readonly #folder = mkdtempSync(join(tmpdir(), "bpfhv-fuzz-server-"));
  readonly #socket = join(this.#folder, "nic.sock");
  readonly #fds = new StrangeFds();
  readonly #server: ChildProcess;
  readonly #limit: ResourceLimit;
  #log = "";
  #idleFds = Number.POSITIVE_INFINITY;

  constructor() {
    const words = ["serve", "--socket", this.#socket, "--net", "loopback", "--queues", "2"];
    this.#server = spawn(process.execPath, [MAIN, ...words], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#server.stderr!.on("data", (chunk) => {
      this.#log = `${this.#log}${chunk}`.slice(-2000);
    });
    this.#limit = new ResourceLimit(this.#pid, WARM_UP_CHECKS);
  }

  get #pid(): number {
    return this.#server.pid!;
  }

  /** Waits until the server accepts connections. */
  async ready(): Promise<this> {
    for (const end = performance.now() + 30_000; ; await sleep(20)) {
      try {
        await this.check();
        this.#idleFds = resourcesOf(this.#pid).descriptors;
        return this;
      } catch (error) {
        if (performance.now() > end || !isAlive(this.#pid)) throw this.#explained(error);
      }
    }
  }

  run(steps: Connection): number {
    this.#expectAlive();
    const client = new RawClient(this.#connected(() => connectUnix(this.#socket)));
    const epoll = new Epoll(1);
    try {
      epoll.add(client.fd, EPOLLOUT, 0);
      for (const [hex, kinds] of steps) {
        const fds = kinds.map((kind) => this.#fds.get(kind));
        this.#send(client, Buffer.from(hex, "hex"), fds, epoll);
        this.#fds.block();
      }
      client.answers();
    } catch (error) {
      // The server may close a connection at any time.
      if (!(error instanceof OsError)) throw error;
    } finally {
      epoll.close();
      client.close();
    }
    return steps.length;
  }

  #send(client: RawClient, bytes: Buffer, fds: readonly number[], epoll: Epoll): void {
    for (const end = performance.now() + DEADLINE_MS; client.send(bytes, fds) < 0; ) {
      client.answers();
      epoll.wait(1);
      expect(performance.now() < end, () => this.#told("the server takes no more messages"));
    }
  }

  /** The backlog is short, and closed connections still occupy it. */
  #connected<T>(connect: () => T): T {
    for (const end = performance.now() + DEADLINE_MS; ; ) {
      try {
        return connect();
      } catch (error) {
        if (!(error instanceof OsError)) throw error;
        if (performance.now() > end) throw this.#explained(error);
        pause(1);
      }
    }
  }

  /**
   * Checks that a well-behaved client gets its packets back, and that none of its resources remain.
   */
  async check(): Promise<void> {
    this.#expectAlive();
    const memory = new LocalMemory(4 << 20);
    try {
      const client = this.#connected(() => new VfioUserClient(this.#socket, memory, 5));
      try {
        exchange(new GuestDriver(client, memory));
      } finally {
        client.close();
      }
    } catch (error) {
      throw this.#explained(error);
    } finally {
      memory.close();
    }
    await this.#released();
    await this.#limit.check();
  }

  async #released(): Promise<void> {
    for (const end = performance.now() + RELEASE_MS; ; await sleep(5)) {
      const { descriptors } = resourcesOf(this.#pid);
      if (descriptors <= this.#idleFds) return;
      if (performance.now() < end) continue;
      throw new Find(
        this.#told(`${descriptors} descriptors without a client; ${this.#idleFds} at the start`),
      );
    }
  }

  resources(): Resources {
    return resourcesOf(this.#pid);
  }

  #expectAlive(): void {
    const { exitCode, signalCode } = this.#server;
    expect(exitCode === null && signalCode === null && isAlive(this.#pid), () =>
      this.#told(`the server ended: ${signalCode ?? `status ${exitCode}`}`),
    );
  }

  #explained(error: unknown): Find {
    return new Find(this.#told(`a good client is not served: ${(error as Error).message}`));
  }

  #told(text: string): string {
    return this.#log === ""
      ? text
      : `${text}\n${this.#log.trim().split("\n").slice(-3).join("\n")}`;
  }

  async close(): Promise<void> {
    // A hung server ignores SIGTERM.
    this.#server.kill("SIGKILL");
    this.#fds.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function exchange(driver: GuestDriver): void {
  driver.open();
  for (let n = 0; n < PACKETS; n++) driver.send(n % driver.pairs, frameOf(n));
  const got: number[] = [];
  for (const end = performance.now() + DEADLINE_MS; got.length < PACKETS; pause(0.2)) {
    for (let q = 0; q < driver.pairs; q++) driver.receive(q, (frame) => got.push(numberOf(frame)));
    expect(performance.now() < end, () => `${got.length} of ${PACKETS} packets came back`);
  }
  driver.disable();
}

const NEVER = new Int32Array(new SharedArrayBuffer(4));
const pause = (ms: number): void => void Atomics.wait(NEVER, 0, 0, ms);

export const vfioUser: Target<Connection> = {
  name: "vfio-user",
  description: "raw messages with strange descriptors over connections to a server process",
  unit: "messages",
  // As many connections wait in the socket's backlog.
  lag: 8,
  generate,
  open: () => new ServerSession().ready(),
};
