/**
 * Sizes of frames, in all ring formats, on all ports: delivered whole or counted, never truncated.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench } from "../../test/support/guest.ts";
import { isTestFrame, OUTSIDES, skipTap, testFrame } from "../../test/support/net.ts";
import { FEATURES } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import { FORMATS as RING_FORMATS } from "../devices/registry.ts";
import { DROP_TOO_LONG } from "../memory/counters.ts";

const BUFFER = 512;
const MTU = 1500;
const LARGE = FEATURES.RX_CSUM | FEATURES.TCP_V4_LRO;
const DEADLINE_MS = 5000;

interface Format {
  readonly name: string;
  readonly device: RingFormat;
  readonly features: number;
  /** Length of a guest's buffers in bytes. */
  readonly bufferSize: number;
  /** Length of the longest frame that fits such a guest, in bytes. */
  readonly most: number;
}

/**
 * Formats with one buffer a packet take what fits it. A packet
 * of several buffers is limited by the MTU.
 */
const FORMATS: readonly Format[] = RING_FORMATS.flatMap((device): Format[] => {
  const { name } = device;
  if ((device.features & FEATURES.SG) === 0) {
    return [
      { name, device, features: 0, bufferSize: BUFFER, most: BUFFER },
      { name: `${name} of one page`, device, features: 0, bufferSize: 3520, most: 3520 },
    ];
  }
  const buffers = { device, bufferSize: BUFFER };
  return [
    { name, features: FEATURES.SG, most: MTU + 14 + 8, ...buffers },
    { name: `${name} with large packets`, features: FEATURES.SG | LARGE, most: 65557, ...buffers },
  ];
});

function benchOf({ device, features, bufferSize }: Format): Bench {
  const bench = new Bench({
    device,
    mib: 16,
    config: { mtu: MTU, rxBufs: 256, txBufs: 16 },
    guest: { bufferSize, features },
  });
  assert.equal(bench.driver.features, features);
  bench.driver.open();
  return bench;
}

/** Runs turns until `count` frames are delivered or counted. */
async function receive(bench: Bench, count: number): Promise<Uint8Array[]> {
  const [pair] = bench.local.pairs;
  const got: Uint8Array[] = [];
  for (const until = performance.now() + DEADLINE_MS; performance.now() < until; ) {
    bench.settle();
    got.push(...bench.take().filter(isTestFrame));
    if (got.length + pair.rx.counters[DROP_TOO_LONG] >= count) return got;
    await sleep(1);
  }
  return got;
}

/** Delivers frames of a port of this kind to a new guest. The others must be counted. */
async function deliver(format: Format, kind: string, frames: readonly Uint8Array[]): Promise<void> {
  const bench = benchOf(format);
  const [pair] = bench.local.pairs;
  const outside = OUTSIDES.get(kind)!({ frames, metadata: format.device.features !== 0 });
  try {
    pair.setPort(outside.port);
    const got = await receive(bench, frames.length);
    const fitting = frames.filter(({ length }) => length <= format.most);
    assert.deepEqual(
      got.map(({ length }) => length),
      fitting.map(({ length }) => length),
    );
    for (const [i, frame] of fitting.entries()) assert.equal(Buffer.compare(got[i], frame), 0);
    assert.equal(pair.rx.counters[DROP_TOO_LONG], frames.length - fitting.length);
  } finally {
    outside.close();
    bench.close();
  }
}

for (const format of FORMATS) {
  describe(`${format.name}: frame is delivered whole when it fits, and otherwise counted`, () => {
    const { most } = format;
    const lengths = [60, most + 1, most - 1, most, 2 * most, most + 8, 61, most, most + 1, 64];
    const frames = lengths.filter((n) => n <= 65535).map((n, i) => testFrame(i, n));
    for (const kind of OUTSIDES.keys()) {
      const skip = kind === "tap" ? skipTap() : false;
      test(`from ${kind}`, { skip }, async () => {
        if (kind !== "source") return deliver(format, kind, frames);
        for (const { length } of frames) {
          const frame = testFrame(0, length);
          await deliver(format, kind, [frame, frame, frame]);
        }
      });
    }
  });
}

test("loop keeps running when a source sends only frames that are too long", () => {
  const format = FORMATS[0];
  const bench = benchOf(format);
  const [pair] = bench.local.pairs;
  const outside = OUTSIDES.get("source")!({
    frames: { length: Number.POSITIVE_INFINITY, 0: testFrame(0, format.most + 1) } as never,
    metadata: false,
  });
  pair.setPort(outside.port);
  assert.equal(pair.fillRx(), 0);
  const dropped = pair.rx.counters[DROP_TOO_LONG];
  assert.ok(dropped > 0 && dropped <= 64, `${dropped}`);
  assert.equal(pair.armKicks(), true, "more frames are pending");
  outside.close();
  bench.close();
});
