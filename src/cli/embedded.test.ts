import assert from "node:assert/strict";
import { test } from "node:test";
import { runEmbedded } from "./embedded.ts";

test("the embedded demo moves every packet, in order and unchanged, and measures it", () => {
  const result = runEmbedded({ packets: 5000 });
  assert.equal(result.sent, 6000);
  assert.equal(result.received, 6000);
  assert.equal(result.wrong, 0);
  assert.ok(result.fromGuestPps > 0 && result.toGuestPps > 0 && result.rttMs > 0);
  assert.ok(result.instructionsPerPacket.tx > 20);
});
