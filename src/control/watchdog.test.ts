import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { pipe, until } from "../../test/support/os.ts";
import { close } from "../os/fd.ts";
import * as libc from "../os/libc.ts";
import { currentThread, whatHolds } from "../os/thread.ts";
import { PULSE } from "./waiting-worker.ts";
import { Watchdog } from "./watchdog.ts";

const LIBC = new URL("../os/libc.js", import.meta.url).href;
const THREAD = new URL("../os/thread.js", import.meta.url).href;

function watch() {
  const pulse = new Int32Array(new SharedArrayBuffer(4 * PULSE.WORDS));
  const said: string[] = [];
  const events = {
    stuck: (what: string) => said.push(what),
    moved: (looks: number) => said.push(`moved after ${looks > 2}`),
  };
  return { pulse, said, watchdog: new Watchdog(pulse, events, 10) };
}

test("a watchdog reports once that a worker hangs, and that it continues", async () => {
  const { pulse, said, watchdog } = watch();
  pulse[PULSE.thread] = currentThread();
  pulse[PULSE.turns] = 1;
  await until("the watchdog to tell", () => said.length > 0);
  await sleep(100);
  assert.equal(said.length, 1);
  assert.match(said[0], /has hung for 3 s: it is in/);
  pulse[PULSE.turns]++;
  await until("the watchdog to tell", () => said.length > 1);
  assert.equal(said[1], "moved after true");
  watchdog.close();
});

test("a watchdog reports nothing when the loop runs or has not started", async () => {
  const { pulse, said, watchdog } = watch();
  await sleep(100);
  assert.equal(watchdog.begun, false);
  for (let n = 0; n < 50; n++) {
    pulse[PULSE.turns]++;
    await sleep(2);
  }
  watchdog.close();
  assert.deepEqual(said, []);
});

test("whatHolds names the call and the descriptor when a read blocks", async () => {
  const [reading, writing] = pipe();
  const worker = new Worker(
    `const { parentPort } = require("node:worker_threads");
     (async () => {
       const { currentThread } = await import(${JSON.stringify(THREAD)});
       const libc = await import(${JSON.stringify(LIBC)});
       parentPort.postMessage(currentThread());
       libc.read(${reading}, libc.STRUCT_ADDRESS, 1);
     })();`,
    { eval: true },
  );
  const thread = await new Promise<number>((resolve) => worker.once("message", resolve));
  const wanted = new RegExp(`^read on fd ${reading} \\(pipe:`);
  await until("the watchdog to tell", () => wanted.test(whatHolds(thread)));
  libc.write(writing, libc.ONE_ADDRESS, 1);
  await worker.terminate();
  assert.match(whatHolds(thread), /a call that the kernel does not name/);
  for (const fd of [reading, writing]) close(fd);
});
