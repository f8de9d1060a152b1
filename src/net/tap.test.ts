/**
 * What the kernel refuses of a TAP's reads and writes: each error has
 * one outcome, and none makes the loop spin.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, test } from "node:test";
import { batchOf, skipTap, TapPair, testFrame } from "../../test/support/net.ts";
import { Batch } from "../memory/index.ts";
import { close } from "../os/fd.ts";
import { mapAnonymous } from "../os/memory.ts";
import { openTap } from "../os/tap.ts";
import { TapPort } from "./tap.ts";

const skip = skipTap();
const MTU_FRAME = 1514;

function withTap(vnetHeader: 0 | 12, action: (port: TapPort, pair: TapPair) => void): void {
  const pair = new TapPair();
  try {
    const port = new TapPort(openTap({ name: "nic", vnetHeader, offloads: 0, netns: pair.netns }));
    try {
      pair.waitForBridge(port.fd);
      while (receiveInBytes(port, 100).length > 0);
      action(port, pair);
    } finally {
      port.close();
    }
  } finally {
    pair.close();
  }
}

/** Receives what has come; `count` buffers of one byte for each call. */
function receiveInBytes(port: TapPort, count: number): Uint8Array[] {
  const memory = mapAnonymous(count);
  const bytes = new Uint8Array(memory.view(0, count));
  const batch = new Batch(64, count);
  for (let s = 0; s < count; s++) batch.addSegment(memory.address + s, 1);
  batch.receiveInto(MTU_FRAME, Math.min(count, MTU_FRAME));
  port.receive(batch);
  const frames = Array.from({ length: batch.packets }, (_, p) =>
    bytes.slice(batch.first[p], batch.first[p] + batch.length[p]),
  );
  memory.unmap();
  // Neither what the kernel says by itself, nor what waited for the bridge and comes late.
  return frames.filter((frame) => frame[12] === 0x88 && frame[14] !== 0xff);
}

describe("a TAP port", { skip }, () => {
  for (const vnetHeader of [0, 12] as const) {
    test(`receives into more buffers than one call takes, header ${vnetHeader}`, () => {
      withTap(vnetHeader, (port, pair) => {
        const frames = [60, 700, 1100, 61].map((length, n) => testFrame(n, length));
        for (const frame of frames) assert.equal(pair.give(frame), frame.length);
        const got: Uint8Array[] = [];
        for (let n = 0; n < 4; n++) got.push(...receiveInBytes(port, 2000));
        assert.deepEqual(got, [frames[0], frames[1], frames[3]]);
        assert.equal(port.tooLong, 1, "1100 bytes do not fit one call");
        assert.equal(port.receiveDrained, true);
        assert.equal(port.failures, 0);
      });
    });
  }

  test("counts a failure when it cannot receive, and returns to the loop", () => {
    withTap(0, (port) => {
      const { batch, memory } = batchOf([testFrame(1, 60)], false);
      close(port.fd);
      receiveInBytes(port, 100);
      assert.deepEqual([port.failures, port.dropped, port.linkUp], [1, 1, true]);
      assert.equal(port.receiveDrained, true);
      assert.match(port.takeNotice(), /tap:nic: receiving fails, packets are lost: EBADF$/);
      assert.equal(port.send(batch), 1);
      assert.deepEqual([port.dropped, port.sendBlocked], [2, false]);
      memory.unmap();
    });
  });

  test("takes the guest's offloads as none when the interface is removed", () => {
    for (const vnetHeader of [0, 12] as const) {
      withTap(vnetHeader, (port, pair) => {
        execFileSync("ip", ["-n", pair.netns, "link", "delete", "dev", "nic"]);
        port.setReceiveOffloads(1);
        assert.equal(port.linkUp, false);
        assert.match(port.takeNotice(), /tap:nic: offloads cannot be set: .*was removed/);
      });
    }
  });

  test("drops and counts when the interface is down, and reports its removal", () => {
    withTap(0, (port, pair) => {
      const { batch, memory } = batchOf([testFrame(1, 60), testFrame(2, 60)], false);
      execFileSync("ip", ["-n", pair.netns, "link", "set", "dev", "nic", "down"]);
      assert.equal(port.send(batch), 2);
      assert.deepEqual([port.dropped, port.sendBlocked, port.linkUp], [2, false, true]);
      assert.match(port.takeNotice(), /tap:nic: sending fails, .* the interface is down \(EIO\)/);
      port.send(batch);
      assert.equal(port.takeNotice(), "", "told once");
      execFileSync("ip", ["-n", pair.netns, "link", "delete", "dev", "nic"]);
      assert.equal(port.send(batch), 2);
      assert.deepEqual([port.dropped, port.linkUp], [6, false]);
      assert.match(port.takeNotice(), /the interface was removed \(EBADFD\)/);
      memory.unmap();
    });
  });
});
