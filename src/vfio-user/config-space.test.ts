import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { CONFIG_EFFECT, CONFIG_SIZE, ConfigSpace } from "./config-space.ts";
import { placeMsix } from "./msix.ts";

const IDENTITY = {
  vendor: 0x1b36,
  device: 0x000e,
  subsystemVendor: 0x1af4,
  subsystem: 0x1100,
  classCode: 0x020000,
  revision: 2,
};

function newConfig(vectors = 5): ConfigSpace {
  return new ConfigSpace(IDENTITY, placeMsix(vectors, 2));
}

function write(config: ConfigSpace, offset: number, ...bytes: number[]): number {
  return config.write(offset, Uint8Array.from(bytes), 0, bytes.length);
}

function bytes(config: ConfigSpace, offset: number, count: number): number[] {
  return [...config.bytes.subarray(offset, offset + count)];
}

test("header and capabilities have the expected bytes when a device is described", () => {
  const config = newConfig();
  const expected: [number, string][] = [
    [0x00, "36 1b 0e 00 00 00 10 00 02 00 00 02 00 00 00 00"],
    [0x10, "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"],
    [0x20, "00 00 00 00 00 00 00 00 00 00 00 00 f4 1a 00 11"],
    [0x30, "00 00 00 00 40 00 00 00 00 00 00 00 00 00 00 00"],
    [0x40, "01 50 03 00 08 00 00 00"],
    [0x50, "10 90 02 00 00 80 00 10 10 28 00 00 11 00 00 00 00 00 11 00"],
    [0x90, "11 00 04 00 02 00 00 00 02 08 00 00"],
    [0x100, "00 00 00 00"],
  ];
  for (const [offset, hex] of expected) {
    const wanted = hex.split(" ").map((byte) => Number.parseInt(byte, 16));
    assert.deepEqual(bytes(config, offset, wanted.length), wanted, `at 0x${offset.toString(16)}`);
  }
});

test("the MSI-X capability is absent when a device has no vectors", () => {
  const config = new ConfigSpace(IDENTITY, null);
  assert.deepEqual(bytes(config, 0x50, 2), [0x10, 0]);
  assert.deepEqual(bytes(config, 0x90, 12), new Array(12).fill(0));
});

test("only writable bits change when all ones are written", () => {
  const config = newConfig();
  const before = config.bytes.slice();
  for (let offset = 0; offset < CONFIG_SIZE; offset++) {
    if (offset !== 0x59) write(config, offset, 0xff);
  }
  const writable = new Map([
    [0x04, 0x47],
    [0x05, 0x05],
    [0x0c, 0xff],
    [0x0d, 0xff],
    [0x3c, 0xff],
    [0x44, 0x03],
    [0x58, 0xff],
    [0x93, 0xc0],
  ]);
  for (let offset = 0; offset < CONFIG_SIZE; offset++) {
    const wanted = before[offset]! | (writable.get(offset) ?? 0);
    assert.equal(config.bytes[offset], wanted, `at 0x${offset.toString(16)}`);
  }
});

test("BARs and ROM BAR read as 0 when their size is probed", () => {
  const config = newConfig();
  for (let offset = 0x10; offset < 0x34; offset += 4) {
    if (offset === 0x28 || offset === 0x2c) continue;
    write(config, offset, 0x00, 0xf8, 0xff, 0xff);
    assert.deepEqual(bytes(config, offset, 4), [0, 0, 0, 0]);
  }
});

test("bus mastering is reported when it changes, by command register or power state", () => {
  const config = newConfig();
  assert.equal(write(config, 0x04, 0x02, 0x04), CONFIG_EFFECT.none);
  assert.equal(write(config, 0x04, 0x06, 0x04), CONFIG_EFFECT.busMaster);
  assert.equal(config.busMaster, true);
  assert.equal(write(config, 0x04, 0x06), CONFIG_EFFECT.none);
  assert.equal(write(config, 0x44, 0x03), CONFIG_EFFECT.busMaster);
  assert.equal(config.busMaster, false);
  assert.equal(write(config, 0x44, 0x00), CONFIG_EFFECT.busMaster);
});

test("function level reset restores all bytes when bit 15 of device control is set", () => {
  const config = newConfig();
  const before = config.bytes.slice();
  write(config, 0x04, 0x06, 0x04);
  write(config, 0x3c, 11);
  assert.equal(write(config, 0x58, 0x10, 0x28), CONFIG_EFFECT.none);
  assert.equal(write(config, 0x58, 0x10, 0xa8), CONFIG_EFFECT.reset);
  config.reset();
  assert.deepEqual(config.bytes, before);
});

test("read-only bytes stay the same when writes are random", () => {
  const before = newConfig().bytes.slice();
  const readOnly = [
    0, 1, 2, 3, 8, 9, 10, 11, 0x10, 0x30, 0x34, 0x3d, 0x40, 0x41, 0x50, 0x90, 0x92, 0x94, 0x98,
  ];
  const writes = fc.array(fc.tuple(fc.nat(0x110), fc.uint8Array({ minLength: 1, maxLength: 16 })), {
    maxLength: 30,
  });
  fc.assert(
    fc.property(writes, (sequence) => {
      const config = newConfig();
      for (const [offset, data] of sequence) config.write(offset, data, 0, data.length);
      for (const offset of readOnly) assert.equal(config.bytes[offset], before[offset]);
    }),
  );
});

test("MSI-X table and pending bits are inside their BAR when vectors are 1 to 2048", () => {
  for (const vectors of [1, 5, 64, 128, 129, 255, 256, 1000, 2048]) {
    const { tableOffset, pbaOffset, barSize } = placeMsix(vectors, 2);
    assert.ok(pbaOffset >= tableOffset + vectors * 16);
    assert.ok(pbaOffset + Math.ceil(vectors / 64) * 8 <= barSize);
    assert.equal(barSize & (barSize - 1), 0);
    assert.equal(pbaOffset % 8, 0);
  }
});
