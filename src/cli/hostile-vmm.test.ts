/**
 * A server whose VMM wants it to hang: what it shares with the
 * server blocks, and the server goes on.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { blockingFull, lingering, strangers, until } from "../../test/support/os.ts";
import {
  type Answer,
  message,
  pack,
  RawClient,
  u32s,
  VERSION_PAYLOAD,
} from "../../test/support/vfio-user.ts";
import { statusOf } from "../control/client.ts";
import { close, fdTarget } from "../os/fd.ts";
import { connectUnix } from "../os/unix-socket.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-hostile-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const COMMAND = { map: 2, setIrqs: 8, write: 10 } as const;
const EINVAL = 22;

class Server {
  readonly socket = join(folder, `${Math.random().toString(36).slice(2)}.sock`);
  readonly child: ChildProcess;
  text = "";

  constructor(...words: string[]) {
    this.child = spawn(process.execPath, [MAIN, "serve", "--socket", this.socket, ...words]);
    this.child.stderr?.on("data", (data) => {
      this.text += data;
    });
  }

  get openFds(): number {
    return readdirSync(`/proc/${this.child.pid}/fd`).length;
  }

  /** A client that has agreed on the version. */
  async client(): Promise<Client> {
    // The file is there before anybody listens.
    const client = new Client(await until("the socket", () => connected(this.socket)));
    await client.ask(1, VERSION_PAYLOAD);
    return client;
  }

  /** @returns the exit status, and how long it took, in milliseconds */
  async stop(): Promise<{ status: number | null; ms: number }> {
    const start = performance.now();
    const ended = new Promise<number | null>((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGTERM");
    const hard = setTimeout(() => this.child.kill("SIGKILL"), 60_000);
    const status = await ended;
    clearTimeout(hard);
    return { status, ms: performance.now() - start };
  }
}

function connected(path: string): number | null {
  try {
    return connectUnix(path);
  } catch {
    return null;
  }
}

class Client {
  readonly #raw: RawClient;
  constructor(fd: number) {
    this.#raw = new RawClient(fd);
  }

  async ask(command: number, payload: Buffer, fds: readonly number[] = []): Promise<Answer> {
    this.#raw.send(message(command, payload), fds);
    return until("an answer", () => this.#raw.answers().answers[0]);
  }

  close(): void {
    this.#raw.close();
  }
}

const setIrqs = (flags: number, start: number, count: number): Buffer =>
  u32s(20, flags, 2, start, count);
const TRIGGER_FDS = 0x24;
const TRIGGER_NONE = 0x21;

describe("a vfio-user client", () => {
  test("gets its answers when its interrupt eventfd is full and blocking", async () => {
    const server = new Server();
    try {
      const client = await server.client();
      // Bus mastering on: else no interrupt is sent.
      await client.ask(COMMAND.write, pack([8, 4], [4, 7], [4, 2], [2, 0x0406]));
      const full = blockingFull();
      assert.equal(
        (await client.ask(COMMAND.setIrqs, setIrqs(TRIGGER_FDS, 0, 1), [full])).errno,
        0,
      );
      for (let n = 0; n < 10; n++) {
        assert.equal((await client.ask(COMMAND.setIrqs, setIrqs(TRIGGER_NONE, 0, 1))).errno, 0);
      }
      close(full);
      client.close();
    } finally {
      assert.equal((await server.stop()).status, 0, server.text);
    }
  });

  test("is refused when an interrupt is not an eventfd or memory is not a file", async () => {
    const server = new Server();
    try {
      const client = await server.client();
      const before = server.openFds;
      for (const [i, { name, fd }] of strangers().entries()) {
        const irqs = await client.ask(COMMAND.setIrqs, setIrqs(TRIGGER_FDS, 0, 1), [fd]);
        assert.equal(irqs.errno, EINVAL, name);
        const map = pack([4, 32], [4, 3], [8, 0], [8, i * 4096], [8, 4096]);
        const { errno } = await client.ask(COMMAND.map, map, [fd]);
        // What has a path may be RAM of a VM that lives on without a
        // NIC: a range that cannot be used.
        assert.equal(errno, fdTarget(fd).startsWith("/") ? 0 : EINVAL, name);
        close(fd);
      }
      assert.ok(server.openFds <= before, "descriptors of the server");
      assert.equal(server.text.match(/is not used, because/g)?.length, 1, server.text);
      client.close();
    } finally {
      assert.equal((await server.stop()).status, 0, server.text);
    }
    assert.equal(server.text.match(/is not used.*memory-backend-memfd/g)?.length, 1, server.text);
  });

  test("gets its answers when the close of its descriptors blocks", async () => {
    const server = new Server();
    const { fd, others } = lingering(30);
    try {
      const client = await server.client();
      // The server's is the last reference.
      server.child.kill("SIGSTOP");
      const answer = client.ask(COMMAND.setIrqs, setIrqs(TRIGGER_FDS, 0, 1), [fd]);
      close(fd);
      const start = performance.now();
      server.child.kill("SIGCONT");
      assert.equal((await answer).errno, EINVAL);
      assert.equal((await client.ask(COMMAND.setIrqs, setIrqs(TRIGGER_NONE, 0, 1))).errno, 0);
      assert.ok(performance.now() - start < 10_000, "long before it is closed");
      client.close();
    } finally {
      const { status, ms } = await server.stop();
      assert.equal(status, 0, server.text);
      assert.ok(ms < 5000, `${ms} ms`);
      for (const other of others) close(other);
    }
  });

  test("causes one log line for each kind of refusal; status shows first and last", async () => {
    const server = new Server();
    try {
      const client = await server.client();
      for (let n = 0; n < 50; n++) {
        // A doorbell that is none, and an interrupt of another kind.
        await client.ask(COMMAND.write, pack([8, 800 + n * 8], [4, 1], [4, 4], [4, 0]));
        await client.ask(COMMAND.setIrqs, setIrqs(TRIGGER_FDS, 0, 99));
      }
      const told = () => server.text.split("\n").filter((line) => /refused[^:]* \(/.test(line));
      await until("two lines", () => told().length >= 2);
      await sleep(1200);
      assert.equal(
        told().filter((line) => /doorbells refused \(doorbell\); doorbell of queue 1/.test(line))
          .length,
        1,
      );
      assert.equal(
        told().filter((line) => /interrupt requests refused.*SET_IRQS .*EINVAL/.test(line)).length,
        1,
      );
      assert.equal(told().length, 2, server.text);
      const status = (await statusOf(server.socket)) as Record<string, string>;
      assert.match(status.firstRefusal, /doorbell of queue 100 of 2/);
      assert.match(status.lastRefusal, /doorbell of queue 149 of 2/);
      client.close();
    } finally {
      assert.equal((await server.stop()).status, 0, server.text);
    }
  });
});
