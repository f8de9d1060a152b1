/** The client's end of a control socket, beside hostile servers. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { atMost } from "../../test/support/os.ts";
import { QUEUE_COUNTERS } from "../memory/counters.ts";
import { ask, askOrRefused } from "./client.ts";
import { readNic } from "./nic-answer.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-client-"));
after(() => rmSync(folder, { recursive: true, force: true }));
let names = 0;
const newPath = () => join(folder, `s${names++}`);

/** As the head of an HTTP answer whose body follows. */
const HEAD = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";

describe("the client's end", () => {
  test("has a deadline for the whole answer when it arrives in small pieces", async () => {
    await hostile(
      (socket) => {
        socket.write(HEAD);
        const timer = setInterval(() => socket.write("x"), 20);
        socket.once("close", () => clearInterval(timer));
      },
      async (path) => {
        const before = performance.now();
        await assert.rejects(ask(path, {}, { timeoutMs: 300 }), /timed out after 300 ms/);
        assert.ok(performance.now() - before < atMost(2000));
      },
    );
  });

  test("refuses an answer that does not end", async () => {
    await hostile(
      (socket) => {
        socket.write(HEAD);
        const more = () => {
          while (!socket.destroyed && socket.write("x".repeat(65536)));
        };
        socket.on("drain", more);
        more();
      },
      async (path) => assert.rejects(ask(path), /longer than 262144 bytes/),
    );
  });

  test("fails when the answer is not JSON, is nested too deeply, or does not come", async () => {
    const answers: [string, RegExp][] = [
      ["no HTTP\n", /its answer is not HTTP/],
      [`${HEAD}no json\n`, /JSON/],
      [`${HEAD}${"[".repeat(1000)}${"]".repeat(1000)}\n`, /nested too deeply/],
      [`HTTP/1.1 200 OK\r\nx: ${"y".repeat(20_000)}\r\n\r\n{}`, /header is longer than 8192/],
      ["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}", /closed the connection/],
      ["", /closed the connection/],
    ];
    for (const [answer, message] of answers) {
      await hostile(
        (socket) => socket.end(answer),
        async (path) => assert.rejects(ask(path), message),
      );
    }
  });

  test("removes terminal control characters from answers", async () => {
    const nasty = "\x1b[2J\x9b31m\r\n\x07\u202e\u2028ok";
    await hostile(
      (socket) => socket.end(`${HEAD}${JSON.stringify({ [nasty]: [nasty], error: nasty })}\n`),
      async (path) => {
        const text = JSON.stringify((await ask(path)).body);
        assert.doesNotMatch(text, /[\p{Cc}\p{Cf}\p{Zl}]|\\[urnb]/u);
        assert.match(text, /ok/);
      },
    );
  });

  test("tells a refusal from an answer, and an error status from both", async () => {
    const answers: [string, RegExp][] = [
      ['HTTP/1.1 409 Conflict\r\n\r\n{"error":"no"}', /^Error: no$/],
      ['HTTP/1.1 200 OK\r\n\r\n{"error":"no"}', /^Error: no$/],
      ["HTTP/1.1 500 Oops\r\n\r\n{}", /status 500 and no error/],
      ["HTTP/1.1 500 Oops\r\n\r\nnull", /status 500 and no error/],
    ];
    for (const [answer, message] of answers) {
      await hostile(
        (socket) => socket.end(answer),
        async (path) => assert.rejects(askOrRefused(path), message),
      );
    }
  });

  test("sends no request to a server of another user", async () => {
    let heard = "";
    await hostile(
      (socket) =>
        socket.on("data", (chunk) => {
          heard += chunk;
        }),
      async (path) => {
        await assert.rejects(ask(path, {}, { trusts: () => false }), /a server of user/);
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
  for (const each of wrong) assert.throws(() => readNic(each), /not a NIC's status/);
});

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
