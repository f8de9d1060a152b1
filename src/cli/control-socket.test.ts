/** Both ends of a control socket, each beside a hostile other end. */
import assert from "node:assert/strict";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { atMost } from "../../test/support/os.ts";
import { QUEUE_COUNTERS } from "../memory/counters.ts";
import { close } from "../os/fd.ts";
import { listenUnix } from "../os/unix-socket.ts";
import { type ControlCommands, ControlServer } from "./control-server.ts";
import { askControl, controlPath } from "./control-socket.ts";
import { readNic } from "./nic-answer.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-control-"));
after(() => rmSync(folder, { recursive: true, force: true }));
let names = 0;
const newPath = () => join(folder, `s${names++}`);

const ECHO: ControlCommands = { status: async () => ({ fine: true }) };

async function served<T>(
  commands: ControlCommands,
  use: (path: string) => Promise<T>,
  idleMs?: number,
): Promise<T> {
  const path = newPath();
  const server = new ControlServer(path, commands, idleMs === undefined ? {} : { idleMs });
  try {
    return await use(controlPath(path));
  } finally {
    server.close();
  }
}

describe("the server's end", () => {
  test("answers a request of an unknown kind with an error", async () => {
    await served(ECHO, async (path) => {
      assert.deepEqual(await askControl(path, { kind: "status" }), { fine: true });
      for (const request of [{ kind: "upgrade" }, {}, { kind: "toString" }, [], null, 5]) {
        const answer = (await askControl(path, request)) as { error?: string };
        assert.match(answer.error ?? "", /kind.*status/, JSON.stringify(request));
      }
    });
  });

  test("keeps a path that is not a stale socket, and follows no link", () => {
    const precious = newPath();
    writeFileSync(precious, "data", { mode: 0o644 });
    const inTheWay: Record<string, (at: string) => void> = {
      "a file": (at) => writeFileSync(at, "data"),
      "a directory": (at) => mkdirSync(at),
      "a link to a file": (at) => symlinkSync(precious, at),
      "a link to nothing": (at) => symlinkSync(join(folder, "nothing"), at),
    };
    for (const [what, make] of Object.entries(inTheWay)) {
      const path = newPath();
      make(controlPath(path));
      const before = lstatSync(controlPath(path));
      assert.throws(() => new ControlServer(path, ECHO), /not a socket is in the way/, what);
      const now = lstatSync(controlPath(path));
      assert.deepEqual([now.ino, now.mode], [before.ino, before.mode], what);
    }
    assert.equal(readFileSync(precious, "utf8"), "data");
    assert.equal(statSync(precious).mode & 0o777, 0o644);
  });

  test("replaces a stale socket, and keeps a live one", async () => {
    const path = newPath();
    close(listenUnix(controlPath(path)));
    const server = new ControlServer(path, ECHO);
    assert.throws(() => new ControlServer(path, ECHO), /a live server listens there/);
    assert.deepEqual(await askControl(controlPath(path), { kind: "status" }), { fine: true });
    server.close();
    assert.equal(statSync(controlPath(path), { throwIfNoEntry: false }), undefined);
  });

  test("has no wider permissions while it is created, under any umask", async () => {
    const at = newPath();
    // Makes sockets until it is told to stop; their modes are looked at meanwhile.
    const done = new Int32Array(new SharedArrayBuffer(4));
    const code = `
      import { workerData } from "node:worker_threads";
      const { ControlServer } = await import(workerData.module);
      while (Atomics.load(workerData.done, 0) === 0) {
        new ControlServer(workerData.at, {}).close();
        await new Promise((next) => setImmediate(next));
      }`;
    const module = new URL("./control-server.js", import.meta.url).href;
    const before = process.umask(0);
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), {
      workerData: { module, at, done },
    });
    const ended = new Promise((resolve) => worker.once("exit", resolve));
    try {
      const modes = new Set<number>();
      let seen = 0;
      for (let n = 0; n < 200 && seen < 2000; n++) {
        for (let look = 0; look < 1000; look++) {
          const stat = lstatSync(controlPath(at), { throwIfNoEntry: false });
          if (stat === undefined) continue;
          seen++;
          modes.add(stat.mode & 0o777);
        }
        await sleep(1);
      }
      assert.ok(seen >= 100, `${seen} looks`);
      assert.deepEqual([...modes], [0o600]);
    } finally {
      Atomics.store(done, 0, 1);
      await ended;
      process.umask(before);
    }
  });

  test("answers a hundred clients at once", async () => {
    await served(ECHO, async (path) => {
      const clients = await Promise.all(Array.from({ length: 100 }, () => connected(path)));
      const answers = clients.map(async (client) => {
        client.write('{"kind":"status"}\n');
        return `${await nextChunk(client)}`;
      });
      assert.deepEqual(new Set(await Promise.all(answers)), new Set(['{"fine":true}\n']));
      for (const client of clients) client.destroy();
    });
  });

  test("answers several requests in order when the client hangs up after asking", async () => {
    let n = 0;
    await served({ status: async () => n++ }, async (path) => {
      const client = await connected(path);
      client.end('{"kind":"status"}\n'.repeat(3));
      let text = "";
      for await (const chunk of client) text += chunk;
      assert.equal(text, "0\n1\n2\n");
    });
  });

  test("holds one answer for a client that never reads, and drops the client", async () => {
    let asked = 0;
    const big = "x".repeat(100_000);
    const status = async () => {
      asked++;
      return big;
    };
    await served(
      { status },
      async (path) => {
        const client = await connected(path);
        client.pause();
        for (let n = 0; n < 2000; n++) client.write('{"kind":"status"}\n');
        await sleep(1000);
        const gone = new Promise<void>((resolve) => client.once("close", () => resolve()));
        client.resume();
        await Promise.race([gone, sleep(5000)]);
        assert.ok(client.closed, "dropped");
        // Some answers fit into the socket's buffers.
        assert.ok(asked < 20, `${asked} answers were made`);
        assert.equal(await askControl(path, { kind: "status" }).then(() => "answered"), "answered");
      },
      300,
    );
  });

  test("refuses requests when too many of disconnected clients are unanswered", async () => {
    let asked = 0;
    const status = () => {
      asked++;
      return new Promise(() => {});
    };
    await served({ status }, async (path) => {
      for (let n = 0; n < 128; n++) {
        const client = await connected(path);
        client.end('{"kind":"status"}\n');
        client.destroy();
      }
      for (let n = 0; asked < 128; n++) {
        assert.ok(n < 1000, `${asked} requests came`);
        await sleep(10);
      }
      assert.match(
        ((await askControl(path, { kind: "status" })) as { error: string }).error,
        /too many requests/,
      );
    });
  });
});

describe("the client's end", () => {
  test("has a deadline for the whole answer when it arrives in small pieces", async () => {
    await hostile(
      (socket) => {
        const timer = setInterval(() => socket.write("x"), 20);
        socket.once("close", () => clearInterval(timer));
      },
      async (path) => {
        const before = performance.now();
        await assert.rejects(askControl(path, {}, { timeoutMs: 300 }), /does not answer within/);
        assert.ok(performance.now() - before < atMost(2000));
      },
    );
  });

  test("refuses an answer that does not end", async () => {
    await hostile(
      (socket) => {
        const more = () => {
          while (!socket.destroyed && socket.write("x".repeat(65536)));
        };
        socket.on("drain", more);
        more();
      },
      async (path) => assert.rejects(askControl(path, {}), /longer than 262144 bytes/),
    );
  });

  test("fails when the answer is not JSON, is nested too deeply, or does not come", async () => {
    const answers: [string, RegExp][] = [
      ["no json\n", /JSON/],
      [`${"[".repeat(1000)}${"]".repeat(1000)}\n`, /nested too deeply/],
      ["", /closed the connection/],
    ];
    for (const [answer, message] of answers) {
      await hostile(
        (socket) => socket.end(answer),
        async (path) => assert.rejects(askControl(path, {}), message),
      );
    }
  });

  test("removes terminal control characters from answers", async () => {
    const nasty = "\x1b[2J\x9b31m\r\n\x07\u202e\u2028ok";
    await hostile(
      (socket) => socket.end(`${JSON.stringify({ [nasty]: [nasty], error: nasty })}\n`),
      async (path) => {
        const text = JSON.stringify(await askControl(path, {}));
        assert.doesNotMatch(text, /[\p{Cc}\p{Cf}\p{Zl}]|\\[urnb]/u);
        assert.match(text, /ok/);
      },
    );
  });

  test("sends no request to a server of another user", async () => {
    let heard = "";
    await hostile(
      (socket) =>
        socket.on("data", (chunk) => {
          heard += chunk;
        }),
      async (path) => {
        await assert.rejects(askControl(path, {}, { trusts: () => false }), /a server of user/);
        await sleep(50);
        assert.equal(heard, "");
      },
    );
  });
});

const counters = Object.fromEntries(QUEUE_COUNTERS.map(([name]) => [name, 0]));
const QUEUE = { queue: "rx0", counters, broken: false, fill: null, bufs: 256 };
const TEXTS = { device: "sring", port: "sink", mac: "52:54:00:00:00:01", link: "up" };
const NIC = {
  ...{ ...TEXTS, step: "no guest", lastRefusal: "", socket: "/s", pid: 7, generation: 1 },
  ...{ programs: "-", features: [], queues: [QUEUE] },
};

test("a status is accepted as it is; fields that an older server lacks are added", () => {
  assert.equal(readNic({ ...NIC, version: "1.0", other: [1] }).version, "1.0");
  assert.equal(readNic(NIC).version, "-");
  const bare = { ...QUEUE, counters: {} };
  assert.equal(readNic({ ...NIC, queues: [bare] }).queues[0].counters.dropPort, 0);
});

test("an answer that is not a status is refused", () => {
  const wrong: unknown[] = [
    ...[null, 5, "x", [], {}],
    ...[
      { ...NIC, queues: "many" },
      { ...NIC, queues: [null] },
      { ...NIC, features: [5] },
    ],
    ...[
      { ...NIC, pid: "7" },
      { ...NIC, version: {} },
      { ...NIC, step: undefined },
    ],
    { ...NIC, queues: Array.from({ length: 17 }, () => QUEUE) },
    { ...NIC, queues: [{ ...QUEUE, queue: "x".repeat(1000) }] },
    { ...NIC, queues: [{ ...QUEUE, counters: { packets: "many" } }] },
    { ...NIC, queues: [{ ...QUEUE, fill: {} }] },
  ];
  for (const each of wrong) assert.throws(() => readNic(each), /as a NIC does/);
});

function connected(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const client = connect(path, () => resolve(client));
    client.on("error", reject);
  });
}

function nextChunk(client: Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    client.once("data", resolve);
    client.once("close", () => reject(new Error("closed")));
  });
}

/** A server that does as it likes. */
async function hostile(
  serve: (socket: Socket) => unknown,
  use: (path: string) => Promise<unknown>,
): Promise<void> {
  const path = newPath();
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    await use(path);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}
