/** Plain MSI instead of MSI-X: what the client sees, and vectors that the guest did not enable. */
import assert from "node:assert/strict";
import test from "node:test";
import { RecordingDevice, u32s } from "../../test/support/vfio-user.ts";
import { createEventFd, drainEventFd } from "../os/eventfd.ts";
import { newCounters } from "./counters.ts";
import { handleSetIrqs } from "./irqs.ts";
import { PciFunction } from "./pci.ts";

const EVENTFD_TRIGGER = 0x24;
const EINVAL = 22;
const MSI = 1;
const MSIX = 2;

function msiFunction(vectors = 3): PciFunction {
  const device = Object.assign(new RecordingDevice(), { vectors, interrupts: "msi" as const });
  const pci = new PciFunction(device, newCounters());
  pci.writeConfig(4, 2, Uint8Array.of(0x06, 0x04), 0);
  return pci;
}

function setIrqs(pci: PciFunction, index: number, start: number, fds: readonly number[]): number {
  const request = u32s(20, EVENTFD_TRIGGER, index, start, fds.length);
  const view = new DataView(request.buffer, request.byteOffset, request.length);
  return handleSetIrqs(pci.vectors, view, 0, request.length, fds);
}

test("MSI-X capability and BAR are absent when a device has plain MSI", () => {
  const { config, regionSizes, vectors } = msiFunction();
  // Id, end of the list, 4 messages of 64 bits without masks; address and data are 0.
  const capability = [0x05, 0, 0x84, 0, ...new Array(10).fill(0)];
  assert.deepEqual([...config.bytes.subarray(0x90, 0x9e)], capability);
  assert.equal(config.bytes[0x51], 0x90);
  assert.equal(vectors.count, 4);
  assert.equal(regionSizes[2], 0);
});

test("only enable, number, address and data of MSI change when a guest writes all ones", () => {
  const { config } = msiFunction();
  config.write(0x90, new Uint8Array(16).fill(0xff), 0, 16);
  const written = [0x05, 0, 0xf5, 0, 0xfc, ...new Array(9).fill(0xff), 0, 0];
  assert.deepEqual([...config.bytes.subarray(0x90, 0xa0)], written);
});

test("vectors share the first message when the guest enabled fewer than the device has", () => {
  const pci = msiFunction();
  // They belong to the vectors, which close them.
  const events = [createEventFd(), createEventFd()];
  assert.equal(setIrqs(pci, MSIX, 0, events), EINVAL, "it has no MSI-X");
  assert.equal(setIrqs(pci, MSI, 0, events), 0);
  for (const vector of [0, 1, 2, 3]) pci.fire(vector);
  assert.deepEqual(events.map(drainEventFd), [3, 1]);
  pci.vectors.detach(0);
  pci.fire(2);
  assert.equal(drainEventFd(events[1]!), 0, "without the first, nothing fires");
  pci.vectors.clear();
});

test("plain MSI is refused when it has more than 32 vectors", () => {
  assert.throws(() => msiFunction(33), /33 MSI vectors; use 0 to 32/);
  assert.equal(msiFunction(17).vectors.count, 32);
});
