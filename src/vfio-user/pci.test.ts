import assert from "node:assert/strict";
import test from "node:test";
import { RecordingDevice } from "../../test/support/vfio-user.ts";
import { newCounters } from "./counters.ts";
import type { PciDevice } from "./device.ts";
import { PciFunction } from "./pci.ts";

function describe(changes: Partial<PciDevice>): PciFunction {
  const device = Object.assign(new RecordingDevice(), changes) as PciDevice;
  return new PciFunction(device, newCounters());
}

test("a description is refused with a reason when it is not valid for PCI", () => {
  const bar = { size: 4096 };
  const bad: [Partial<PciDevice>, RegExp][] = [
    [{ bars: new Array(7).fill(null) }, /at most 6/],
    [{ bars: [{ size: 3000 }] }, /BAR 0: 3000 bytes; use a power of two/],
    [{ bars: [null, { size: 8 }] }, /BAR 1: 8 bytes/],
    [{ bars: [{ size: 2 ** 32 }] }, /BAR 0/],
    [{ vectors: 2049 }, /2049 MSI-X vectors/],
    [{ vectors: -1 }, /vectors/],
    [{ bars: new Array(6).fill(bar) }, /BAR of its own/],
    [{ bars: [bar], msixBar: 0 }, /BAR of its own/],
    [{ bars: [bar], msixBar: 6 }, /BAR of its own/],
    [{ identity: { vendor: 0x10000, device: 0, classCode: 0 } }, /vendor 65536/],
    [{ identity: { vendor: 1, device: 0, classCode: 0x1000000 } }, /classCode/],
  ];
  for (const [changes, message] of bad) assert.throws(() => describe(changes), message);
});

test("MSI-X uses the first free BAR when the device names none", () => {
  const bars = [{ size: 4096 }, { size: 16 }, null, { size: 131072 }];
  assert.deepEqual(
    [...describe({ bars, msixBar: 4 }).regionSizes],
    [4096, 16, 0, 131072, 4096, 0, 0, 4096, 0],
  );
  assert.deepEqual([...describe({ bars }).regionSizes], [4096, 16, 4096, 131072, 0, 0, 0, 4096, 0]);
  const without = describe({ bars: new Array(6).fill({ size: 16 }), vectors: 0 });
  assert.equal(without.regionSizes[5], 16);
});

test("reads of 8 bytes use readWide when the device has it", () => {
  const to = new DataView(new ArrayBuffer(8));
  describe({
    readWide: (_bar, offset, value) => {
      value[0] = offset;
      value[1] = 0xfffffff0;
    },
  }).readBar(0, 0x18, 8, to, 0);
  assert.equal(to.getBigUint64(0, true), 0xfffffff0_00000018n);
});
