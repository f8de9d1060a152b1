/** The API beside hostile clients: each costs the server a bounded amount, and gets the reason. */
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
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { until } from "../../test/support/os.ts";
import { close } from "../os/fd.ts";
import { listenUnix } from "../os/unix-socket.ts";
import { serveApi } from "./api.ts";
import { type Answer, ask } from "./client.ts";
import { ControlSocket } from "./control-socket.ts";
import { Events } from "./events.ts";
import type { HttpServer, Limits } from "./http-server.ts";
import { mayUse } from "./peer-access.ts";
import { completeSpec } from "./read-spec.ts";
import { ROUTES } from "./routes.ts";
import { type NicWorker, RunningNic } from "./running-nic.ts";
import { controlPath } from "./socket-path.ts";
import { FIELD_NAMES } from "./spec.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-api-"));
after(() => rmSync(folder, { recursive: true, force: true }));
let names = 0;
const newPath = () => join(folder, `s${names++}.sock`);

/** A worker that says yes to everything, but to a port of this kind. */
class FakeWorker implements NicWorker {
  readonly requests: [verb: string, body: unknown][] = [];
  status: object = { generation: 1, programs: "-" };
  waits: Promise<void> = Promise.resolve();

  async request<Result>(verb: string, body?: unknown): Promise<Result> {
    this.requests.push([verb, body]);
    await this.waits;
    if (verb === "status") return this.status as Result;
    if ((body as { kind?: string }).kind === "tap") throw new Error("no such interface");
    return undefined as Result;
  }

  get changes() {
    return this.requests.filter(([verb]) => verb !== "status");
  }
}

interface Api {
  readonly path: string;
  readonly worker: FakeWorker;
  readonly nic: RunningNic;
  readonly events: Events;
  readonly http: HttpServer;
}

async function served(use: (api: Api) => Promise<unknown>, limits: Partial<Limits> = {}) {
  const path = newPath();
  const worker = new FakeWorker();
  const events = new Events();
  const nic = new RunningNic({
    ...{ spec: completeSpec({ socket: path, name: "vm1" }), worker },
    process: async () => ({ pid: 7 }),
    replace: ({ device, rxBufs }) =>
      device === "vring_packed"
        ? Promise.reject(new Error("the guest's interface is down"))
        : worker.request("replace-set", [device, rxBufs]),
    changed: (changed) => events.publish("changed", "vm1", { changed }),
  });
  const socket = new ControlSocket(path);
  const api = { version: "1.0", events, nics: () => [nic] };
  const http = serveApi({ served: api, own: nic, socket, limits });
  try {
    await use({ path: controlPath(path), worker, nic, events, http });
  } finally {
    http.close();
  }
}

const fields = ({ body }: Answer) => body as Record<string, never>;
const errorOf = (answer: Answer): string => fields(answer).error;

describe("the API", () => {
  test("shows spec, status, and the generations of a NIC", async () => {
    await served(async ({ path, worker, nic }) => {
      const answer = await ask(path);
      assert.equal(answer.status, 200);
      const { name, spec, status, generation } = fields(answer);
      assert.deepEqual([name, spec], ["vm1", nic.spec]);
      assert.deepEqual(status, { pid: 7, generation: 1, programs: "-" });
      assert.deepEqual(generation, { wanted: 1, running: null });
      worker.status = { generation: 1, programs: "verified" };
      assert.deepEqual(fields(await ask(path)).generation, { wanted: 1, running: 1 });
      assert.deepEqual(fields(await ask(path, { path: "/v1/nics/vm1" })).spec, nic.spec);
      const { nics } = fields(await ask(path, { path: "/v1/nics" }));
      const { socket } = nic.spec;
      const state = { state: "running", failure: null };
      assert.deepEqual(nics, [{ ...{ name: "vm1", socket, device: "sring" }, ...state }]);
    });
  });

  test("changes nothing, or all, of what is put", async () => {
    await served(async ({ path, worker, nic }) => {
      const put = (body: unknown, query = "") =>
        ask(path, { method: "PUT", path: `/v1/nic${query}`, body });
      const plan = [
        { verb: "set-port", field: "port", from: "sink", to: "null" },
        { verb: "set-mtu", field: "mtu", from: 1500, to: 1400 },
      ];
      const dry = await put({ mtu: 1400, port: "null" }, "?dry-run=1");
      assert.deepEqual([dry.status, fields(dry)], [200, { plan }]);
      assert.deepEqual(worker.changes, []);
      const done = await put({ mtu: 1400, port: "null" });
      assert.deepEqual([done.status, fields(done).changed], [200, plan]);
      assert.deepEqual(worker.changes, [
        ["set-port", { kind: "null" }],
        ["set-mtu", 1400],
      ]);
      assert.deepEqual([nic.spec.port, nic.spec.mtu], ["null", 1400]);
      // PUT is the whole spec: what is not given has its default. PATCH is not.
      const patched = await ask(path, { method: "PATCH", body: { mtu: 1300 } });
      assert.deepEqual(fields(patched).changed, [
        { verb: "set-mtu", field: "mtu", from: 1400, to: 1300 },
      ]);
      assert.deepEqual(fields(await put({})).changed, [
        { verb: "set-port", field: "port", from: "null", to: "sink" },
        { verb: "set-mtu", field: "mtu", from: 1300, to: 1500 },
      ]);
      assert.deepEqual(fields(await put({})).changed, []);
    });
  });

  test("refuses with a status and a sentence, and the NIC stays as it was", async () => {
    await served(async ({ path, worker }) => {
      const put = (body: unknown) => ask(path, { method: "PUT", body });
      const cases: [Promise<Answer>, number, RegExp][] = [
        [put({ device: "vring_packed", rxBufs: 64 }), 409, /is down \(the device stays as it was/],
        [put({ queues: 2, port: "null" }), 409, /^queues: cannot change from 1 to 2/],
        [put({ port: "tap:x" }), 409, /no such interface \(the port stays as it was\)/],
        [put({ mtu: 67 }), 400, /^mtu 67: use a whole number from 68/],
        [put({ kind: "upgrade" }), 400, /^kind upgrade: unknown field: there are name, socket/],
        [put([]), 400, /use an object of fields/],
        [put("x"), 400, /use an object of fields/],
        [ask(path, { method: "PUT" }), 400, /the body is not JSON: it is empty/],
        [ask(path, { path: "/v1/nic?dryrun" }), 200, /^$/],
        [ask(path, { method: "PUT", path: "/v1/nic?dryrun=1", body: {} }), 400, /dry-run=1$/],
        [ask(path, { path: "/" }), 404, /unknown path \/: there are \/v1\/nic, /],
        [ask(path, { path: "/v1/nics/vm2" }), 404, /^no NIC vm2: there are vm1$/],
        [ask(path, { path: "/v1/nics/%1b" }), 404, /unknown path/],
        [ask(path, { path: "//" }), 400, /is not a path/],
        [ask(path, { path: "/v1/constructor" }), 404, /unknown path/],
        [ask(path, { method: "PUT", path: "/v1/nics" }), 405, /PUT \/v1\/nics: use GET/],
        [ask(path, { method: "DELETE" as "GET" }), 405, /use GET, PUT, PATCH$/],
      ];
      for (const [asked, status, message] of cases) {
        const answer = await asked;
        assert.match(errorOf(answer) ?? "", message);
        assert.equal(answer.status, status, errorOf(answer));
      }
      assert.ok(worker.changes.every(([, body]) => (body as { kind?: string }).kind === "tap"));
      const { paths } = fields(await ask(path, { path: "/v2" }));
      assert.deepEqual(paths, Object.keys(ROUTES));
    });
  });

  test("describes itself: every route and every field of the table", async () => {
    await served(async ({ path }) => {
      const api = fields(await ask(path, { path: "/v1/openapi.json" })) as Record<string, object>;
      assert.deepEqual(Object.keys(api.paths), Object.keys(ROUTES));
      const { Spec } = (api.components as { schemas: Record<string, { properties: object }> })
        .schemas;
      assert.deepEqual(Object.keys(Spec.properties), FIELD_NAMES);
      const text = JSON.stringify(api);
      const { schemas } = api.components as { schemas: object };
      for (const [, name] of text.matchAll(/#\/components\/schemas\/(\w+)/g)) {
        assert.ok(Object.hasOwn(schemas, name), name);
      }
    });
  });

  test("makes changes one after the other when several ask at once", async () => {
    await served(async ({ path, nic, worker }) => {
      const all = Array.from({ length: 20 }, (_, n) =>
        ask(path, { method: "PATCH", body: { mtu: 1000 + n } }),
      );
      const answers = await Promise.all(all);
      assert.ok(answers.every(({ status }) => status === 200));
      const changes = answers.map((answer) => fields(answer).changed[0] as { to: number });
      assert.equal(new Set(changes.map(({ to }) => to)).size, 20);
      assert.equal(nic.spec.mtu, worker.changes.at(-1)?.[1]);
    });
  });

  test("answers that the NIC does not when its worker hangs", async () => {
    await served(
      async ({ path, worker }) => {
        worker.waits = new Promise(() => {});
        const late = "the NIC's thread does not answer";
        const answers = [await ask(path), await ask(path, { method: "PUT", body: { mtu: 1400 } })];
        for (const answer of answers) {
          assert.deepEqual([answer.status, errorOf(answer)], [503, late]);
        }
      },
      { answerMs: 300 },
    );
  });

  test("tells events as they happen, and drops a client that does not read them", async () => {
    await served(
      async ({ path, events, http }) => {
        const reader = await connected(path);
        let heard = "";
        reader.on("data", (chunk) => {
          heard += chunk;
        });
        const sleeper = await connected(path);
        sleeper.pause();
        for (const each of [reader, sleeper])
          each.write("GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n");
        await until("both to listen", () => events.listeners === 2);
        await ask(path, { method: "PATCH", body: { mtu: 1400 } });
        await until("an event", () => heard.includes("event: changed"));
        assert.match(heard, /text\/event-stream/);
        assert.match(heard, /data: {"nic":"vm1","changed":\[{"verb":"set-mtu",.*"to":1400}\]}\n/);
        const text = "x".repeat(10_000);
        await until("the sleeper to be dropped", () => {
          events.publish("log", "vm1", { text });
          return events.listeners === 1;
        });
        assert.equal(http.counters.droppedStreams, 1);
        reader.destroy();
        await until("nobody to listen", () => events.listeners === 0);
      },
      { streams: 2 },
    );
  });
});

describe("a hostile client", () => {
  const request = (head: string, body = "") => `${head}\r\nhost: x\r\n${body}`;

  test("hears one clear answer when it sends a megabyte of garbage", async () => {
    await served(async ({ path, http }) => {
      const garbage = Buffer.alloc(1024 * 1024, "\x00garbage\xff\r\n", "latin1");
      const answer = await conversation(path, garbage);
      assert.match(
        answer,
        /^HTTP\/1\.1 400 Bad Request\r\n[^{]*\{"error":"this is not HTTP[^}]*\}\n$/,
      );
      const head = request("PUT /v1/nic HTTP/1.1", `content-length: ${garbage.length}\r\n\r\n`);
      const put = await conversation(path, Buffer.concat([Buffer.from(head), garbage]));
      assert.match(
        put,
        /^HTTP\/1\.1 413 [^{]*\{"error":"the body is longer than 65536 bytes"\}\n$/,
      );
      const chunked = request("PUT /v1/nic HTTP/1.1", "transfer-encoding: chunked\r\n\r\n");
      const chunk = `10000\r\n${"x".repeat(65536)}\r\n`.repeat(16);
      const many = await conversation(path, Buffer.from(`${chunked}${chunk}0\r\n\r\n`));
      assert.match(many, /^HTTP\/1\.1 413 /);
      const long = request("GET /v1/nic HTTP/1.1", `x: ${"y".repeat(9000)}\r\n\r\n`);
      assert.match(
        await conversation(path, Buffer.from(long)),
        /^HTTP\/1\.1 431 [^{]*\{"error":"the header is longer/,
      );
      assert.equal((await ask(path)).status, 200);
      assert.equal(http.counters.tooLarge, 2);
    });
  });

  test("is one of a hundred at once, and each is answered", async () => {
    await served(async ({ path }) => {
      const clients = await Promise.all(Array.from({ length: 100 }, () => connected(path)));
      const answers = clients.map(async (client) => {
        client.write(request("GET /v1/nic HTTP/1.1", "\r\n"));
        return `${await nextChunk(client)}`.split("\r\n", 1)[0];
      });
      assert.deepEqual(new Set(await Promise.all(answers)), new Set(["HTTP/1.1 200 OK"]));
      for (const client of clients) client.destroy();
    });
  });

  test("has few answers made for it when it never reads, and is dropped", async () => {
    await served(
      async ({ path, worker }) => {
        worker.status = { text: "x".repeat(100_000) };
        const client = await connected(path);
        client.pause();
        client.write(request("GET /v1/nic HTTP/1.1", "\r\n").repeat(2000));
        await sleep(1000);
        const gone = new Promise<void>((resolve) => client.once("close", () => resolve()));
        client.resume();
        await Promise.race([gone, sleep(5000)]);
        assert.ok(client.closed, "dropped");
        assert.equal(worker.requests.length, 1, "answers that were made");
        assert.equal((await ask(path)).status, 200);
      },
      { idleMs: 300 },
    );
  });

  test("hears an answer that takes longer than a client may be idle", async () => {
    await served(
      async ({ path, worker }) => {
        worker.waits = sleep(1000);
        assert.equal((await ask(path)).status, 200);
      },
      { idleMs: 300 },
    );
  });

  test("hears the first of the requests that it sends at once", async () => {
    await served(async ({ path, worker, events }) => {
      const many = request("GET /v1/nic HTTP/1.1", "\r\n").repeat(500);
      const client = await connected(path);
      client.write(many);
      const text = await wholeAnswer(client);
      assert.match(text, /^HTTP\/1\.1 200 OK\r\n/);
      assert.equal(text.match(/HTTP\/1\.1/g)?.length, 1);
      assert.equal(worker.requests.length, 1);
      const streams = await connected(path);
      streams.write(request("GET /v1/events HTTP/1.1", "\r\n").repeat(500));
      await wholeAnswer(streams);
      await until("the end of the stream", () => events.listeners === 0);
    });
  });

  test("is dropped when it sends its request too slowly", async () => {
    await served(
      async ({ path }) => {
        const client = await connected(path);
        client.write("GET /v1/nic HT");
        const text = await Promise.race([wholeAnswer(client), sleep(8000)]);
        assert.match(String(text), /^HTTP\/1\.1 408 [^{]*\{"error":"the request took longer/);
      },
      { requestMs: 300, idleMs: 60_000 },
    );
  });

  test("is refused when too many requests of disconnected clients are unanswered", async () => {
    await served(async ({ path, worker }) => {
      worker.waits = new Promise(() => {});
      for (let n = 0; n < 128; n++) {
        const client = await connected(path);
        client.end(request("GET /v1/nic HTTP/1.1", "\r\n"));
        client.destroy();
      }
      await until("128 requests", () => worker.requests.length === 128);
      assert.match(errorOf(await ask(path)), /too many requests/);
    });
  });

  test("may not use the socket of another user, whatever its descriptor", () => {
    const file = { mode: 0o140600, uid: 1000, gid: 100 };
    const may = (uid: number, gid: number, groups: number[] = [], mode = file.mode) =>
      mayUse({ uid, gid }, groups, { ...file, mode });
    assert.deepEqual([may(0, 0), may(1000, 5), may(1001, 100)], [true, true, false]);
    assert.deepEqual([may(1001, 100, [], 0o660), may(1001, 5, [], 0o660)], [true, false]);
    assert.deepEqual([may(1001, 5, [7, 100], 0o660), may(1001, 5, [], 0o666)], [true, true]);
  });
});

describe("the control socket", () => {
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
      assert.throws(() => new ControlSocket(path), /not a socket is in the way/, what);
      const now = lstatSync(controlPath(path));
      assert.deepEqual([now.ino, now.mode], [before.ino, before.mode], what);
    }
    assert.equal(readFileSync(precious, "utf8"), "data");
    assert.equal(statSync(precious).mode & 0o777, 0o644);
  });

  test("replaces a stale socket, and keeps a live one", () => {
    const path = newPath();
    close(listenUnix(controlPath(path)));
    const socket = new ControlSocket(path);
    assert.throws(() => new ControlSocket(path), /a live server listens there/);
    socket.close();
    assert.equal(statSync(controlPath(path), { throwIfNoEntry: false }), undefined);
  });

  test("has no wider permissions while it is created, under any umask", async () => {
    const at = newPath();
    // Makes sockets until it is told to stop; their modes are looked at meanwhile.
    const done = new Int32Array(new SharedArrayBuffer(4));
    const code = `
      import { workerData } from "node:worker_threads";
      const { ControlSocket } = await import(workerData.module);
      while (Atomics.load(workerData.done, 0) === 0) {
        new ControlSocket(workerData.at).close();
        await new Promise((next) => setImmediate(next));
      }`;
    const module = new URL("./control-socket.js", import.meta.url).href;
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

async function wholeAnswer(client: Socket): Promise<string> {
  let text = "";
  for await (const chunk of client) text += chunk;
  return text;
}

/** Sends all of it, whatever comes back meanwhile. @returns what came back, to the end */
async function conversation(path: string, bytes: Buffer): Promise<string> {
  const client = await connected(path);
  client.end(bytes);
  return wholeAnswer(client);
}
