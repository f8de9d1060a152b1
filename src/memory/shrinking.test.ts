/**
 * A peer that shrinks its memory files while they are mapped: in a
 * process of its own, with a second thread.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import test from "node:test";
import { Worker } from "node:worker_threads";
import { dup } from "../../test/support/os.ts";
import { close, fstat } from "../os/fd.ts";
import { createMemfd, PAGE } from "../os/memory.ts";
import { RegionTable } from "./regions.ts";

/** Shrinks files and lets them grow again, one after the other, until it is told to stop. */
const SHRINKER = `
  const { parentPort, workerData } = require("node:worker_threads");
  import(workerData.libc).then(({ ftruncate }) => {
    const control = new Int32Array(workerData.control);
    parentPort.postMessage("ready");
    while (Atomics.load(control, 0) === 0) {
      Atomics.store(control, 2, 1);
      const fd = Atomics.load(control, 1);
      ftruncate(fd, 0);
      ftruncate(fd, workerData.size);
      Atomics.store(control, 2, 0);
    }
  });`;

test("a mapped file keeps its size when a peer tries to shrink it meanwhile", async () => {
  const size = 4 * PAGE;
  /** Stop; the descriptor; whether it is being used. */
  const control = new Int32Array(new SharedArrayBuffer(12));
  control[1] = -1;
  const libc = new URL("../os/libc.js", import.meta.url).href;
  const workerData = { libc, size, control: control.buffer };
  const worker = new Worker(SHRINKER, { eval: true, workerData });
  await once(worker, "message");
  let [mapped, refused] = [0, 0];
  const open: number[] = [];
  try {
    // However little of a busy CPU the other thread gets.
    const deadline = performance.now() + 30_000;
    const raced = () => (mapped > 0 && refused > 0) || performance.now() > deadline;
    for (let n = 0; n < 1500 || !raced(); n++) {
      const memfd = createMemfd("shrinking", size);
      Atomics.store(control, 1, memfd);
      const table = new RegionTable();
      const request = { address: 0, size, offset: 0, readable: true, writable: true };
      if (table.map(request, dup(memfd)) === 0) {
        mapped++;
        assert.ok(
          fstat(memfd).size >= table.files[0].mapping.length,
          "pages that are gone: SIGBUS",
        );
      } else refused++;
      table.clear();
      open.push(memfd);
      if (open.length < 200) continue;
      // The number of a closed descriptor may be another file's soon.
      Atomics.store(control, 1, -1);
      while (Atomics.load(control, 2) !== 0);
      for (const fd of open.splice(0)) close(fd);
    }
  } finally {
    Atomics.store(control, 0, 1);
    await worker.terminate();
    for (const fd of open) close(fd);
  }
  assert.ok(mapped > 0 && refused > 0, `${mapped} mapped, ${refused} refused: no race`);
});
