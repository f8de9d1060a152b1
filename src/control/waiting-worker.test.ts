import assert from "node:assert/strict";
import { test } from "node:test";
import { nicWorker, PULSE } from "./waiting-worker.ts";

test("a worker has loaded its modules when the wait for them ends", () => {
  const worker = nicWorker();
  assert.equal(worker.pulse[PULSE.loaded], 0);
  worker.waitUntilLoaded();
  assert.equal(worker.pulse[PULSE.loaded], 1);
});
