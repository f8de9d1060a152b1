/**
 * The server that hands its NICs over to another process, which takes over by `take-over.ts`:
 *
 *     new: begin      old: nics: their specs; changes of them are refused from here on
 *     new: rehearse   old: records of NICs that run, with descriptors: the new one restores them
 *                     once for nothing, which warms its code
 *     new: ready      (programs are proved, workers run)
 *                     old: pauses between two turns; records, with descriptors
 *     new: commit     (all is restored) old: leaves
 *
 * The commit is one write to the socket: the old server either receives it, and never goes on, or
 * has closed the connection before, and the new one's write fails. Until then the old server goes
 * on whatever happens to the new one.
 */
import { close } from "../os/fd.ts";
import { ChannelClosed, FdChannel } from "./fd-channel.ts";
import type { NicHandOver, NicService } from "./nic-service.ts";
import { printable } from "./printable.ts";

/** Of the messages. */
export const PROTOCOL = 1;
const BEGIN_MS = 5000;
/** For loading, compiling and proving. */
const READY_MS = 60_000;
/** Of the pause; QEMU waits 5 s for an answer. */
const COMMIT_MS = 2000;

export interface HandOverOptions {
  /** NICs that run. */
  readonly nics: () => readonly NicService[];
  /** Of bpfhv. */
  readonly version: string;
  readonly log: (level: "info" | "warn", text: string) => void;
  /** Another process has all NICs. */
  readonly left: () => void;
}

export class HandOver {
  readonly #options: HandOverOptions;
  #isBusy = false;

  constructor(options: HandOverOptions) {
    this.#options = options;
  }

  /** @param fd of a process that may take the NICs over; closed at the end. Never rejects. */
  async serve(fd: number): Promise<void> {
    const channel = new FdChannel(fd);
    try {
      await this.#greet(channel);
      const pid = await this.#begin(channel);
      if (pid !== null) await this.#hold(channel, pid);
    } catch (error) {
      this.#options.log("warn", `take-over failed: ${(error as Error).message}`);
    } finally {
      channel.close();
    }
  }

  async #greet(channel: FdChannel): Promise<void> {
    const lines = [
      "HTTP/1.1 101 Switching Protocols",
      "connection: upgrade",
      "upgrade: bpfhv-take-over",
    ];
    await channel.sendText(`${lines.join("\r\n")}\r\n\r\n`);
  }

  /** @returns the process id; null if it is refused */
  async #begin(channel: FdChannel): Promise<string | null> {
    const { kind, protocol, pid } = (await channel.receive(BEGIN_MS)).body;
    const why =
      kind !== "begin" || protocol !== PROTOCOL
        ? `this server (bpfhv ${this.#options.version}) hands over by protocol ${PROTOCOL}, ` +
          `and was asked for ${printable(String(protocol), 20)}: restart the guest's VM instead`
        : this.#isBusy
          ? "another process is taking the NICs over already: wait for it"
          : null;
    if (why === null) return printable(String(pid), 20);
    await channel.send({ kind: "refused", why });
    return null;
  }

  /** No NIC changes while another process prepares for it. */
  async #hold(channel: FdChannel, pid: string): Promise<void> {
    const nics = this.#options.nics();
    const why = `process ${pid} is taking this NIC over: ask again`;
    this.#isBusy = true;
    const releases = await Promise.all(nics.map(({ nic }) => nic.hold(why)));
    try {
      const { version } = this.#options;
      const wanted = nics.map(({ wanted }) => wanted);
      await channel.send({ kind: "nics", version, cwd: process.cwd(), nics: wanted });
      let { body } = await channel.receive(READY_MS);
      if (body.kind === "rehearse") {
        await this.#rehearse(channel, nics);
        ({ body } = await channel.receive(READY_MS));
      }
      if (body.kind !== "ready") throw new Error(reasonOf(body));
      this.#options.log("info", `process ${pid} takes over`);
      if (await this.#freeze(channel, nics)) this.#options.left();
    } finally {
      this.#isBusy = false;
      for (const release of releases) release();
    }
  }

  /** The NICs run on. @throws Error if they could not be handed over now */
  async #rehearse(channel: FdChannel, nics: readonly NicService[]): Promise<void> {
    const sketches = await Promise.all(nics.map((nic) => nic.sketch()));
    try {
      await sendRecords(channel, sketches);
    } finally {
      for (const { fds } of sketches) for (const fd of fds) close(fd);
    }
  }

  /** @returns true if the NICs are the other process's; false if they go on here */
  async #freeze(channel: FdChannel, nics: readonly NicService[]): Promise<boolean> {
    const since = performance.now();
    let isCommitted = false;
    try {
      await sendRecords(channel, await this.#records(nics));
      const { body } = await channel.receive(COMMIT_MS);
      isCommitted = body.kind === "commit";
      if (!isCommitted) throw new Error(reasonOf(body));
    } catch (error) {
      isCommitted = await this.#takeBack(channel, error as Error);
    }
    const ms = (performance.now() - since).toFixed(1);
    if (isCommitted) this.#options.log("info", `the NICs were handed over in ${ms} ms`);
    else {
      // Also to one that has not answered: it may freeze yet.
      await Promise.allSettled(nics.map((nic) => nic.goOn()));
      this.#options.log("warn", `this server goes on after ${ms} ms`);
    }
    return isCommitted;
  }

  async #records(nics: readonly NicService[]): Promise<NicHandOver[]> {
    const results = await Promise.allSettled(nics.map((nic) => nic.freeze()));
    return results.map((result, i) => {
      if (result.status === "fulfilled") return result.value;
      throw new Error(`${nics[i].name}: ${(result.reason as Error).message}`);
    });
  }

  /** @returns true if the other process committed all the same */
  async #takeBack(channel: FdChannel, error: Error): Promise<boolean> {
    const why = error instanceof ChannelClosed ? "it has ended" : error.message;
    // It tells a server that goes on from one that has died.
    await channel.send({ kind: "refused", why }).catch(() => {});
    if (channel.finish()?.body.kind === "commit") return true;
    this.#options.log("warn", `take-over failed: ${why}`);
    return false;
  }
}

async function sendRecords(channel: FdChannel, nics: readonly NicHandOver[]): Promise<void> {
  const list = nics.map(({ record, control, fds }) => ({ record, control, fds: fds.length }));
  const fds = nics.flatMap(({ fds }) => fds);
  await channel.send({ kind: "records", nics: list }, fds);
}

function reasonOf({ kind, why }: Readonly<Record<string, unknown>>): string {
  return kind === "failed" ? printable(String(why)) : `unexpected: ${printable(String(kind), 20)}`;
}
