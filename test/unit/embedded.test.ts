import assert from "node:assert/strict";
import { test } from "node:test";
import { describe, runEmbedded } from "../../bench/embedded.ts";

test("embedded demo moves every packet, in order and unchanged, and says what ran it", () => {
  const result = runEmbedded({ packets: 5000 });
  assert.equal(result.sent, 6000);
  assert.equal(result.received, 6000);
  assert.equal(result.wrong, 0);
  assert.ok(result.fromGuestPps > 0 && result.toGuestPps > 0 && result.rttMs > 0);
  assert.ok(result.instructionsPerPacket.tx > 20);
  assert.deepEqual(new Set(result.runners), new Set(["jit"]));
  assert.match(describe(result), /programs {4}compiled to WebAssembly/);
  const slow = { ...result, runners: ["jit", "interpreter"] as const };
  assert.match(describe(slow), /in the interpreter/);
});
