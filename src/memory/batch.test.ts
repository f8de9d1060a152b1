import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { VNET_HDR } from "../abi/index.ts";
import { Batch } from "./batch.ts";
import { GSO_TCP_V4, NEEDS_CSUM } from "./metadata.ts";

const sizes = fc.array(fc.nat(100), { minLength: 1, maxLength: 20 });

test("next packet takes one segment when packets do not span", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 14, max: 100 }), { maxLength: 20 }), (sizes) => {
      const batch = new Batch(8, 20);
      for (const size of sizes) batch.addSegment(4096, size);
      for (const size of sizes.slice(0, 8)) {
        assert.equal(batch.nextBuffer(), size);
        const p = batch.endReceived(1);
        assert.equal(batch.first[p + 1] - batch.first[p], 1);
      }
      assert.equal(batch.nextBuffer(), 0, "table or segments are used up");
    }),
  );
});

test("next packet has all unused segments, up to the longest packet, when packets span", () => {
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 300 }), fc.nat(300), (sizes, most, less) => {
      const least = Math.max(1, most - less);
      const batch = new Batch(64, 20);
      for (const size of sizes) batch.addSegment(4096, size);
      batch.receiveInto(most, least);
      for (;;) {
        const free = sizes.slice(batch.used).reduce((sum, size) => sum + size, 0);
        const wanted = free >= least ? Math.min(free, most) : 0;
        assert.equal(batch.nextBuffer(), wanted);
        if (wanted === 0) break;
        const length = Math.ceil(wanted / 2);
        const p = batch.endReceived(length);
        const taken = sizes.slice(batch.first[p], batch.first[p + 1]);
        const bytes = taken.reduce((sum, size) => sum + size, 0);
        assert.ok(bytes >= length, "the packet fits");
        assert.ok(bytes - (taken.at(-1) as number) < length, "and takes no segment more");
      }
    }),
  );
});

test("packets take one segment again when the batch was cleared", () => {
  const batch = new Batch(8, 8);
  batch.receiveInto(1500, 1500);
  batch.clear();
  batch.addSegment(4096, 64);
  assert.equal(batch.nextBuffer(), 64);
});

test("metadata is the same after a header, a copy and an object", () => {
  const metadata = fc.record({
    flags: fc.constantFrom(0, NEEDS_CSUM),
    gsoType: fc.nat(0xff),
    hdrLen: fc.nat(0xffff),
    gsoSize: fc.nat(0xffff),
    csumStart: fc.nat(0xffff),
    csumOffset: fc.nat(0xffff),
  });
  fc.assert(
    fc.property(metadata, (wanted) => {
      const header = new Uint16Array(VNET_HDR.size >> 1);
      const batch = new Batch(4);
      const other = new Batch(4);
      batch.setMetadata(1, wanted);
      batch.writeHeader(1, header);
      batch.readHeader(2, header);
      other.copyMetadata(3, batch, 2);
      assert.deepEqual(other.metadataOf(3), { ...wanted });
      other.clearMetadata(3);
      assert.deepEqual(Object.values(other.metadataOf(3)), [0, 0, 0, 0, 0, 0]);
    }),
  );
});

test("header words are those of virtio_net_hdr", () => {
  const bytes = new Uint8Array(VNET_HDR.size);
  const batch = new Batch(1);
  batch.setMetadata(0, {
    flags: NEEDS_CSUM,
    gsoType: GSO_TCP_V4,
    hdrLen: 0x0302,
    gsoSize: 0x0504,
    csumStart: 0x0706,
    csumOffset: 0x0908,
  });
  batch.writeHeader(0, new Uint16Array(bytes.buffer));
  assert.deepEqual([...bytes], [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});
