/** The process that takes over the NICs of another server: see `hand-over.ts`. */
import { failure } from "../errors.ts";
import { close } from "../os/fd.ts";
import { connectUnix, peerCredentials } from "../os/unix-socket.ts";
import { completeSpecs } from "./config-file.ts";
import { ChannelClosed, FdChannel } from "./fd-channel.ts";
import { PROTOCOL } from "./hand-over.ts";
import { UPGRADE } from "./http-server.ts";
import type { NicHandOver, NicService, WantedNic } from "./nic-service.ts";
import type { FileAccess } from "./peer-access.ts";
import { printable } from "./printable.ts";
import { readSpec } from "./read-spec.ts";
import { CONTROL_SUFFIX, controlPath } from "./socket-path.ts";

const ANSWER_MS = 5000;
const MAX_HEADER = 8192;
const MAX_NICS = 256;

/** Where NICs come from that a process goes on with. */
export interface NicSource {
  /** What they are to be. */
  readonly nics: readonly WantedNic[];
  /** Of the process that had them: paths in specs are relative to it. */
  readonly cwd: string;
  /** Their state can be had before they are paused. */
  readonly rehearses: boolean;
  /** What happens to them if this process cannot go on. */
  readonly otherwise: string;
  /**
   * Returns the state of all NICs, in the order of `nics`.
   * @param kind `rehearse`: they run on. `ready`: from here on they are paused
   * @throws CommandError
   */
  records(kind: "rehearse" | "ready"): Promise<readonly NicHandOver[]>;
  /** All are restored, and this process's from here on. @throws CommandError: they are not */
  commit(): Promise<void>;
  /** This process cannot go on with them. */
  fail(why: string): Promise<void>;
}

export class TakeOver implements NicSource {
  /** What the other server serves. */
  readonly nics: readonly WantedNic[];
  /** Of the other server's process. */
  readonly cwd: string;
  readonly rehearses = true;
  readonly otherwise = "the other server goes on";
  readonly #channel: FdChannel;

  private constructor(channel: FdChannel, nics: readonly WantedNic[], cwd: string) {
    this.#channel = channel;
    this.nics = nics;
    this.cwd = cwd;
  }

  /**
   * Asks the server for its NICs; nothing of them changes yet.
   * @param path of one of its sockets, or of its control socket
   * @throws CommandError that says what to do
   */
  static async begin(path: string): Promise<TakeOver> {
    const control = path.endsWith(CONTROL_SUFFIX) ? path : controlPath(path);
    const fd = connectUnix(control, "no server runs there: start one without --take-over");
    try {
      const { uid } = peerCredentials(fd);
      const own = process.getuid?.();
      if (own !== 0 && uid !== own) {
        throw failure(
          `${control}: its server is of user ${uid}: run this as that user, or as root`,
        );
      }
    } catch (error) {
      close(fd);
      throw error;
    }
    const channel = new FdChannel(fd);
    try {
      await upgrade(channel, control);
      await channel.send({ kind: "begin", protocol: PROTOCOL, pid: process.pid });
      const { body } = await channel.receive(ANSWER_MS);
      const { nics, cwd } = expected(body, "nics");
      if (!Array.isArray(nics) || nics.length > MAX_NICS || typeof cwd !== "string") {
        throw new Error("its list of NICs is wrong");
      }
      const given = nics as Partial<WantedNic>[];
      const specs = completeSpecs(given.map(({ spec }) => readSpec(spec)));
      const wanted = specs.map((spec, i) => ({ spec, metadata: given[i].metadata === true }));
      return new TakeOver(channel, wanted, cwd);
    } catch (error) {
      channel.close();
      throw failure(`cannot take over from ${control}: ${(error as Error).message}`);
    }
  }

  /** Asks for it. See `NicSource`. */
  async records(kind: "rehearse" | "ready"): Promise<NicHandOver[]> {
    try {
      await this.#channel.send({ kind });
      const { body, fds } = await this.#channel.receive(ANSWER_MS);
      const { nics } = expected(body, "records");
      let at = 0;
      const taken = (nics as { record: unknown; control: FileAccess; fds: number }[]).map(
        ({ record, control, fds: count }) => {
          at += count;
          return { record, control, fds: fds.slice(at - count, at) };
        },
      );
      if (at === fds.length && taken.length === this.nics.length) return taken;
      throw new Error(`${at} descriptors of ${fds.length}, ${taken.length} NICs`);
    } catch (error) {
      throw failure(`the other server goes on: ${(error as Error).message}`);
    }
  }

  /**
   * All NICs are restored: after this they are this process's, and the other server leaves.
   * @throws CommandError: they are the other server's again
   */
  async commit(): Promise<void> {
    try {
      await this.#channel.send({ kind: "commit" });
    } catch (error) {
      if (!(error instanceof ChannelClosed)) throw error;
      // One that goes on has said so before; one that has died has not.
      const why = this.#channel.finish()?.body.why;
      if (why === undefined) return;
      throw failure(`the other server goes on: ${printable(String(why))}`);
    } finally {
      this.#channel.close();
    }
  }

  /** Tells why, and ends: the other server goes on. */
  async fail(why: string): Promise<void> {
    await this.#channel.send({ kind: "failed", why }).catch(() => {});
    this.#channel.close();
  }
}

/**
 * Goes on with the NICs of another server, in the order of `source.nics`.
 * @throws CommandError; then they are as `source.otherwise` says
 */
export async function takeOver(source: NicSource, nics: readonly NicService[]): Promise<void> {
  const sketches = source.rehearses ? await source.records("rehearse") : [];
  // Whatever is wrong shows again when it matters, or has changed by then.
  await Promise.allSettled(sketches.map((sketch, i) => nics[i].rehearse(sketch)));
  const taken = await source.records("ready");
  try {
    await Promise.all(nics.map((nic, i) => nic.takeOver(taken[i])));
  } catch (error) {
    const why = (error as Error).message;
    await source.fail(why);
    throw failure(`${source.otherwise}: ${why}`);
  }
  await source.commit();
  await Promise.all(nics.map((nic) => nic.goOn()));
}

async function upgrade(channel: FdChannel, control: string): Promise<void> {
  const lines = [
    "GET /v1/take-over HTTP/1.1",
    ...["host: localhost", "connection: upgrade", `upgrade: ${UPGRADE}`],
  ];
  await channel.sendText(`${lines.join("\r\n")}\r\n\r\n`);
  const answer = await channel.receiveText(MAX_HEADER, ANSWER_MS);
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]);
  if (status === 101) return;
  if (status === 404) throw new Error("its version cannot hand its NICs over: stop it instead");
  throw new Error(errorIn(channel.rest) ?? `it answers ${printable(answer, 60)} at ${control}`);
}

function errorIn(text: string): string | null {
  const found = /"error":"([^"]*)"/.exec(text);
  return found === null ? null : printable(found[1]);
}

function expected(body: Readonly<Record<string, unknown>>, kind: string) {
  if (body.kind === kind) return body;
  throw new Error(printable(String(body.why ?? `it answers "${String(body.kind)}"`)));
}
