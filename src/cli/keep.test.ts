/**
 * `bpfhv keep`: the server is killed at different moments, and the VMM, which is this process, gets
 * its answers from the next one. Frames that are numbered tell what is lost.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { skipTap, TapPair } from "../../test/support/net.ts";
import { NumberedLoad } from "../../test/support/numbered-load.ts";
import { until } from "../../test/support/os.ts";
import { closeServers, type Server, spawnServer } from "../../test/support/servers.ts";
import { VERDICT } from "../abi/index.ts";
import { changeSpec, statusOf } from "../control/client.ts";
import type { NicSpec } from "../control/spec.ts";
import type { NicStatus } from "../nic/status.ts";

const skip = skipTap();
const FULL = process.env.BPFHV_FULL === "1";
const TIMES = FULL ? 20 : 1;
const RATE = 4000;
/** Packets that a process may have had in its hands, of one queue pair. */
const MOST_LOST = 2 * 65;
const BACK_MS = 1000;
/** Requests that may have waited so long are answered by an error, after 5 s by nobody. */
const PATIENCE_MS = 3000;

after(closeServers);

interface Status extends NicStatus {
  readonly pid: number;
  readonly crash: { readonly times: number; readonly lost: number };
}

const shown = (values: number[]) => values.map((ms) => ms.toFixed(0)).join(" ");

/** Kills it while this thread waits for its answer. */
function killLater(pid: number, ms: number): void {
  spawn("/bin/sh", ["-c", `sleep ${ms / 1000}; kill -9 ${pid}`], { stdio: "ignore" });
}

describe("NIC of a server that a keeper watches", { skip }, () => {
  let pair: TapPair;
  let keeper: Server;
  let pid: number;
  let load: NumberedLoad | undefined;
  let startMs: number;

  const look = async () => (await statusOf(keeper.socket).catch(() => null)) as Status | null;

  const changeAndLook = async (fields: Partial<NicSpec>): Promise<Status> => {
    await changeSpec(keeper.socket, fields);
    return (await statusOf(keeper.socket)) as Status;
  };

  /** Waits for another process. */
  const next = async (): Promise<Status> => {
    const status = await until("the next server", async () => {
      const status = await look();
      return status !== null && status.pid !== pid ? status : null;
    });
    ({ pid } = status);
    return status;
  };

  const connect = (overlap = false): NumberedLoad => {
    load?.close();
    load = new NumberedLoad({ socket: keeper.socket, pair, rate: RATE, overlap });
    return load;
  };

  const untilGuest = async (what: string, look: () => boolean | Promise<boolean>) => {
    await until(what, () => load?.failed !== undefined || look());
    if (load?.failed !== undefined) throw load.failed;
  };

  /** Frames go both ways. */
  const flows = ({ toHost, toGuest }: NumberedLoad): Promise<void> => {
    const [out, into] = [toHost.received, toGuest.received];
    const more = () => toHost.received > out + 50 && toGuest.received > into + 50;
    return untilGuest("frames", more);
  };

  /** Again with another guest if the next server came too late for QEMU's patience. */
  const patiently = async (body: (tries: number) => Promise<void>): Promise<void> => {
    for (let tries = 1; ; tries++) {
      try {
        return await body(tries);
      } catch (error) {
        if (tries === 4 || !/errno 110|no reply/.test((error as Error).message)) throw error;
      }
      await until("the next server", look).then((status) => {
        ({ pid } = status);
      });
    }
  };

  before(async () => {
    pair = new TapPair();
    const words = ["--net", `tap:nic,netns=${pair.netns}`, "--max-mtu", "1500"];
    const since = performance.now();
    keeper = spawnServer(words, { before: ["keep", "--log-json", "--"] });
    ({ pid } = await until("the server", look));
    startMs = performance.now() - since;
  });

  afterEach(async () => {
    load?.close();
    load = undefined;
    await until("the NIC without a guest", async () => (await look())?.step === "no guest");
  });

  after(async () => {
    keeper.child.kill("SIGTERM");
    assert.equal(await keeper.ended, 0, keeper.err());
    pair.close();
    assert.ok(!existsSync(keeper.socket), "the socket is removed");
  });

  test(`is back when the server is killed ${TIMES} times under load`, async (t) => {
    const load = connect();
    load.start();
    const gaps: number[] = [];
    for (let n = 1; n <= TIMES; n++) {
      await sleep(FULL ? 1500 : 600);
      load.gap();
      process.kill(pid, "SIGKILL");
      const { step, crash } = await next();
      await sleep(50);
      gaps.push(load.gap());
      assert.deepEqual([step, crash.times], ["enabled", n]);
    }
    await load.stop();
    const { crash } = (await look())!;
    const { lost, duplicated, reordered } = load.result;
    t.diagnostic(
      `back after ${shown(gaps)} ms (start: ${startMs.toFixed()}); lost ${lost}, counted ${crash.lost}`,
    );
    assert.ok(load.sentByGuest > 1000 && load.sentByHost > 1000);
    assert.deepEqual([duplicated, reordered], [0, 0]);
    assert.ok(lost <= crash.lost, `${lost} lost, ${crash.lost} counted`);
    assert.ok(crash.lost <= TIMES * MOST_LOST, `${crash.lost} counted`);
    // A machine that is busy, as with this load, has the CPU time for a start much later.
    assert.ok(Math.max(...gaps) <= Math.max(BACK_MS, 10 * startMs));
  });

  test("is back when the server is killed while the guest registers, and idle", async () => {
    for (let n = 0; n < TIMES; n++) {
      // A server that ends sooner than this has failed, for the keeper.
      if (FULL) await sleep(600);
      killLater(pid, FULL ? 2 * n : 1 + 6 * n);
      const since = performance.now();
      try {
        connect();
      } catch (error) {
        // On a busy machine the next server may come too late for a client with QEMU's patience.
        const isLate = performance.now() - since > PATIENCE_MS;
        // After accept(2) the keeper does not have the connection for a moment (docs/keep.md).
        if (!isLate && (error as { code?: string }).code !== "ECONNRESET") throw error;
      }
      await next();
    }
    const load = connect();
    process.kill(pid, "SIGKILL");
    await next();
    load.start();
    await flows(load);
    await load.stop();
    assert.deepEqual(load.result, { lost: 0, duplicated: 0, reordered: 0 });
  });

  const killWhileStaged = async (tries: number) => {
    const load = connect(true);
    load.start();
    await flows(load);
    load.driver.upgrade.judge = () => {
      process.kill(pid, "SIGKILL");
      return { code: VERDICT.READY, info: 0 };
    };
    const { device, generation } = (await look())!;
    const other = device === "sring" ? "vring_packed" : "sring";
    await assert.rejects(changeSpec(keeper.socket, { device: other }));
    const { device: kept, generation: same } = await next();
    assert.deepEqual([kept, same], [device, generation]);
    await flows(load);
    load.driver.upgrade.judge = () => ({ code: VERDICT.READY, info: 0 });
    await changeSpec(keeper.socket, { device: other });
    process.kill(pid, "SIGKILL");
    const { device: later, generation: number } = await next();
    assert.equal(later, other);
    assert.ok(number > generation + 1, "the number of the withdrawn set is not used again");
    await flows(load);
    await load.stop();
    // The TAP may hold frames of the guest before.
    if (tries === 1) assert.deepEqual([load.result.duplicated, load.result.reordered], [0, 0]);
  };

  test("goes on with the old set when the server is killed while another is staged", () =>
    patiently(killWhileStaged));

  const killWhileCut = async (tries: number) => {
    const load = connect(true);
    const { device } = (await look())!;
    const other = device === "sring" ? "vring_packed" : "sring";
    const { upgrade } = load.driver;
    // Between its cuts: the guest publishes to rings of both sets.
    const step = upgrade.step.bind(upgrade);
    let cuts = 0;
    upgrade.step = () => {
      if (upgrade.phase === "cut" && cuts++ === 1) process.kill(pid, "SIGKILL");
      return step();
    };
    load.start();
    await flows(load);
    await assert.rejects(changeSpec(keeper.socket, { device: other }));
    await next();
    await untilGuest("the next set", async () => (await look())?.device === other);
    await flows(load);
    // The spec has followed: nothing is to be changed any more.
    const { generation } = (await look())!;
    assert.equal((await changeAndLook({ device: other })).generation, generation);
    await load.stop();
    // The TAP may hold frames of the guest before.
    if (tries === 1) assert.deepEqual([load.result.duplicated, load.result.reordered], [0, 0]);
  };

  // Not by default: under load it did not end within a minute in some runs, for reasons unknown.
  test(
    "completes a replacement when the server is killed in the middle of it",
    { skip: FULL ? false : "BPFHV_FULL=1" },
    () => patiently(killWhileCut),
  );

  test("loses nothing when the server is stopped, and another one starts", async () => {
    const load = connect();
    load.start();
    await flows(load);
    const before = await changeAndLook({ mtu: 1400 });
    process.kill(pid, "SIGTERM");
    const { crash, mtu } = await next();
    assert.deepEqual([crash, mtu], [before.crash, 1400]);
    await flows(load);
    await load.stop();
    assert.deepEqual(load.result, { lost: 0, duplicated: 0, reordered: 0 });
  });
});

const keep = (...words: string[]) => {
  const server = spawnServer([], { before: ["keep", "--log-json", ...words], socket: "" });
  return server.ended.then((status) => ({ status, err: server.err() }));
};

test("keeper gives up when what it starts fails again and again", async () => {
  const { status, err } = await keep("--failures", "3", "--", "/bin/sh", "-c", "exit 3");
  assert.equal(status, 3);
  assert.match(err, /started again in 0\.1 s/);
  assert.match(err, /has ended \(status 3\), 3 times in a row: it is not started again/);
});

test("keeper ends at once when the command line is wrong, or there is no such program", async () => {
  const wrong = await keep("--", "serve", "--no-such-option");
  assert.equal(wrong.status, 2);
  const none = await keep("--", "/nonexistent");
  assert.equal(none.status, 1);
  assert.match(none.err, /cannot run \/nonexistent/);
});
