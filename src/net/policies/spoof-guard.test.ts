/**
 * Spoofed frames: which are dropped and counted, and that
 * everything else of a batch stays as it was.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { TestPort } from "../../../test/support/guest.ts";
import { DROP_SPOOFED, newQueueCounters, type QueueCounters } from "../../memory/counters.ts";
import { Batch, NEEDS_CSUM } from "../../memory/index.ts";
import { copyBytes, type Mapping, mapAnonymous } from "../../os/memory.ts";
import { SpoofGuard, type SpoofRules } from "./spoof-guard.ts";

const MAC = Uint8Array.of(0x52, 0x54, 0, 0xaa, 0xbb, 0xcc);
const OTHER = Uint8Array.of(0x52, 0x54, 0, 0xaa, 0xbb, 0xcd);

/** A frame from `source`, with the words after its addresses, filled up with bytes that count. */
function frameFrom(source: Uint8Array, words: number[] = [0x0800], length = 80): Uint8Array {
  const frame = Uint8Array.from({ length: Math.max(length, 80) }, (_, i) => i);
  frame.set(source, 6);
  const view = new DataView(frame.buffer);
  for (const [i, word] of words.entries()) view.setUint16(12 + 2 * i, word);
  return frame.slice(0, length);
}

class Guarded {
  readonly port = new TestPort();
  readonly counters: QueueCounters = newQueueCounters();
  readonly guard: SpoofGuard;
  readonly batch = new Batch(64, 1280);
  readonly memory: Mapping = mapAnonymous(1 << 20);
  readonly bytes = new Uint8Array(this.memory.view(0, 1 << 20));
  #at = 0;

  constructor(vlans: SpoofRules["vlans"] = null, tags = 1) {
    this.guard = new SpoofGuard(
      this.port,
      { kind: "anti-spoof", mac: MAC, vlans, tags },
      this.counters,
    );
    this.batch.clear();
    this.batch.metadata = true;
  }

  /** Appends a packet in segments of at most `piece` bytes. */
  add(frame: Uint8Array, piece = frame.length): number {
    for (let at = 0; at < frame.length; at += piece) {
      const part = frame.subarray(at, at + piece);
      this.bytes.set(part, this.#at);
      this.batch.addSegment(this.memory.address + this.#at, part.length);
      this.#at += part.length;
    }
    return this.batch.endPacket(frame.length, this.batch.packets + 1);
  }

  /** @returns whether the frame passes; it is counted if it does not */
  passes(frame: Uint8Array, piece = frame.length, csumStart = -1): boolean {
    this.batch.clear();
    this.batch.metadata = true;
    this.#at = 0;
    const p = this.add(frame, piece);
    this.batch.flags[p] = csumStart < 0 ? 0 : NEEDS_CSUM;
    this.batch.csumStart[p] = csumStart;
    const before = this.spoofed;
    const sent = this.port.sent.length;
    assert.equal(this.guard.send(this.batch), 1);
    const passed = this.port.sent.length - sent;
    assert.equal(passed + this.spoofed - before, 1, "sent, or counted once");
    if (passed === 1) assert.deepEqual(this.port.sent[sent], frame);
    return passed === 1;
  }

  get spoofed(): number {
    return this.counters[DROP_SPOOFED];
  }

  close(): void {
    this.guard.close();
    this.memory.unmap();
  }
}

describe("a port with a guard", () => {
  test("passes bytes and metadata unchanged when a frame has the NIC's address", () => {
    for (const piece of [1, 5, 6, 13, 18, 19, 80]) {
      const bench = new Guarded();
      const frame = frameFrom(MAC);
      const p = bench.add(frame, piece);
      bench.batch.flags[p] = 1;
      bench.batch.gsoType[p] = 4;
      bench.batch.gsoSize[p] = 1400;
      bench.batch.hdrLen[p] = 54;
      bench.batch.csumStart[p] = 34;
      bench.batch.csumOffset[p] = 16;
      assert.equal(bench.guard.send(bench.batch), 1);
      assert.deepEqual(bench.port.sent, [frame], `pieces of ${piece}`);
      const metadata = { flags: 1, gsoType: 4, hdrLen: 54, gsoSize: 1400 };
      assert.deepEqual(bench.port.sentMetadata[0], { ...metadata, csumStart: 34, csumOffset: 16 });
      assert.equal(bench.spoofed, 0);
      bench.close();
    }
  });

  test("drops and counts a frame when it is from another address", () => {
    const bench = new Guarded();
    const honest = [0, 3, 4, 7];
    for (let n = 0; n < 9; n++) bench.add(frameFrom(honest.includes(n) ? MAC : OTHER, [n]));
    assert.equal(bench.guard.send(bench.batch), 9);
    assert.deepEqual(
      bench.port.sent.map((frame) => frame[13]),
      honest,
    );
    assert.equal(bench.spoofed, 5);
    assert.equal(bench.guard.sendBlocked, false);
    bench.close();
  });

  test("neither consumes nor counts frames when the one before them is blocked", () => {
    const bench = new Guarded();
    for (const source of [MAC, OTHER, MAC, OTHER, MAC, OTHER]) bench.add(frameFrom(source));
    bench.port.room = 1;
    assert.equal(bench.guard.send(bench.batch), 2, "one sent, and the bad one behind it");
    assert.equal(bench.guard.sendBlocked, true);
    assert.equal(bench.spoofed, 1);
    bench.close();
  });

  test("does not wait for a blocked port when all frames of a batch are dropped", () => {
    const bench = new Guarded();
    bench.add(frameFrom(MAC));
    bench.port.room = 0;
    assert.equal(bench.guard.send(bench.batch), 0);
    bench.batch.clear();
    bench.add(frameFrom(OTHER));
    assert.equal(bench.guard.send(bench.batch), 1);
    assert.equal(bench.guard.sendBlocked, false);
    bench.close();
  });

  test("sends the header that it checked when the guest changes it meanwhile", () => {
    const bench = new Guarded([0]);
    bench.add(frameFrom(MAC));
    const send = bench.port.send.bind(bench.port);
    bench.port.send = (batch) => {
      // The guest's other CPU, right after the look.
      bench.bytes.set(OTHER, 6);
      bench.bytes.set([0x81, 0, 0, 10], 12);
      return send(batch);
    };
    bench.guard.send(bench.batch);
    assert.deepEqual(bench.port.sent[0].subarray(6, 12), MAC);
    assert.deepEqual([...bench.port.sent[0].subarray(12, 14)], [8, 0]);
    bench.close();
  });

  /**
   * Words behind the addresses, and the least `tags` that passes
   * them, VLANs 0 and 10 being allowed.
   */
  const TAGS: readonly [string, number[], number, number?][] = [
    ["untagged", [0x0800], 1],
    ["a VLAN of the list", [0x8100, 10, 0x0800], 1],
    ["a VLAN of the list, with priority", [0x8100, 0xe00a, 0x0800], 1],
    ["priority only", [0x8100, 0xe000, 0x0800], 1],
    ["another VLAN", [0x8100, 11, 0x0800], 0],
    ["a VLAN with a high byte", [0x8100, 0x10a, 0x0800], 0],
    ["a service tag of another VLAN", [0x88a8, 11, 0x0800], 0],
    ["a service tag of the list", [0x88a8, 10, 0x0800], 1],
    ["a truncated tag", [0x8100, 10], 0, 16],
    ["half a tag", [0x8100, 10], 0, 15],
    ["no type at all", [], 0, 13],
    ["a priority tag before another VLAN", [0x8100, 0, 0x8100, 20, 0x0800], 0],
    ["a service tag for priority before another VLAN", [0x88a8, 0, 0x8100, 20, 0x0800], 0],
    ["a VLAN of the list before another VLAN", [0x8100, 10, 0x8100, 20, 0x0800], 0],
    ["an old service tag of another VLAN", [0x9100, 20, 0x0800], 0],
    ["an old service tag of the list", [0x9100, 10, 0x0800], 1],
    ["0x9200 of another VLAN", [0x9200, 20, 0x0800], 0],
    ["0x9300 of another VLAN", [0x9300, 20, 0x0800], 0],
    ["two tags of the list", [0x88a8, 10, 0x8100, 10, 0x0800], 2],
    ["a priority tag before a VLAN of the list", [0x8100, 0, 0x8100, 10, 0x0800], 2],
    ["three tags of the list", [0x88a8, 10, 0x8100, 10, 0x8100, 10, 0x0800], 0],
    ["a truncated second tag", [0x88a8, 10, 0x8100], 0, 19],
    ["a provider's backbone", [0x88e7, 0, 0x0800], 0],
    ["a port extender", [0x893f, 0, 0, 0, 0x0800], 0],
    ["LLC", [0x0003, 0x4242, 0x0300], 1],
    ["SNAP with IPv4 inside", [0x0040, 0xaaaa, 0x0300, 0, 0x0800], 1],
    ["SNAP with a tag inside", [0x0040, 0xaaaa, 0x0300, 0, 0x8100, 20], 0],
    ["SNAP with a tag inside behind a tag", [0x8100, 10, 64, 0xaaaa, 0x0300, 0, 0x8100, 20], 0],
    ["SNAP of a length that is none", [0x05ff, 0xaaaa, 0x0300, 0, 0x8100, 20], 0],
  ];

  for (const [what, words, least, length] of TAGS) {
    for (const tags of [1, 2]) {
      const passes = least > 0 && tags >= least;
      const verb = passes ? "passes" : "drops";
      test(`${verb} ${what} when ${tags} tags are allowed`, () => {
        const bench = new Guarded([0, 10], tags);
        for (const piece of [1, 3, 14, 17, 80]) {
          assert.equal(bench.passes(frameFrom(MAC, words, length), piece), passes);
        }
        bench.close();
      });
    }
  }

  test("drops every stack of tags by which a receiver could deliver to another VLAN", () => {
    const types = [0x8100, 0x88a8, 0x9100, 0x9200, 0x9300];
    const stack = fc.array(fc.tuple(fc.constantFrom(...types), fc.constantFrom(0, 10, 20, 30)), {
      maxLength: 6,
    });
    const lists = fc.subarray([0, 10, 20, 30], { minLength: 1 });
    const args = [stack, lists, fc.integer({ min: 1, max: 2 }), fc.nat(3), fc.nat(7)] as const;
    let passed = 0;
    fc.assert(
      fc.property(...args, fc.integer({ min: 1, max: 60 }), (tags, list, most, cut, pcp, piece) => {
        const bench = new Guarded(list, most);
        const words = tags.flatMap(([type, vlan]) => [type, (pcp << 13) | vlan]);
        // Cut inside the last tag, or behind all of them.
        const length = cut === 0 ? 80 : 12 + 4 * tags.length + cut - 2;
        const whole = length >= 14 + 4 * tags.length;
        const named = tags.length === 0 ? [0] : tags.map(([, vlan]) => vlan);
        const allowed = named.every((vlan) => list.includes(vlan));
        const wanted = whole && allowed && tags.length <= most;
        const passes = bench.passes(frameFrom(MAC, [...words, 0x0800], length), piece);
        bench.close();
        if (passes) passed++;
        assert.equal(passes, wanted);
      }),
      { numRuns: 2000, seed: 4 },
    );
    assert.ok(passed > 100, `${passed} passed`);
  });

  test("drops a frame when its checksum would be stored into the checked header", () => {
    const cases: readonly [number[], number][] = [
      [[0x0800], 14],
      [[0x8100, 10, 0x0800], 18],
      [[0x88a8, 10, 0x8100, 10, 0x0800], 22],
    ];
    for (const vlans of [null, [0, 10]]) {
      const bench = new Guarded(vlans, 2);
      for (const [words, header] of cases) {
        const frame = frameFrom(MAC, words);
        assert.equal(bench.passes(frame, 80, header), true, `${header}`);
        for (let start = 0; start < header; start++) {
          assert.equal(bench.passes(frame, 80, start), false, `${start} of ${header}`);
        }
      }
      // Where the header ends is not known then.
      const deep = [0x8100, 10, 0x8100, 10, 0x8100, 10, 0x0800];
      assert.equal(bench.passes(frameFrom(MAC, deep), 80, 60), false);
      assert.equal(bench.passes(frameFrom(MAC, deep), 80), vlans === null);
      bench.close();
    }
  });

  test("drops a frame shorter than two addresses after any frame before it", () => {
    const bench = new Guarded();
    assert.equal(bench.passes(frameFrom(MAC)), true);
    for (let length = 1; length < 12; length++) {
      assert.equal(bench.passes(new Uint8Array(length)), false, `${length} bytes`);
    }
    bench.close();
  });

  test("drops untagged frames when VLAN 0 is not in the list", () => {
    const bench = new Guarded([10]);
    bench.add(frameFrom(MAC));
    bench.add(frameFrom(MAC, [0x8100, 10, 0x0800]));
    assert.equal(bench.guard.send(bench.batch), 2);
    assert.equal(bench.port.sent.length, 1);
    bench.close();
  });

  test("sends several batches when packets have very many segments", () => {
    const bench = new Guarded();
    bench.batch.clear();
    const many = new Batch(64, 4096);
    const target = bench.memory.address;
    copyBytes(target, target, 1);
    bench.bytes.set(frameFrom(MAC, [0x0800], 64));
    for (let p = 0; p < 64; p++) {
      for (let s = 0; s < 64; s++) many.addSegment(target + s, 1);
      many.endPacket(64, p + 1);
    }
    const consumed = bench.guard.send(many);
    assert.ok(consumed > 0 && consumed < 64, `${consumed}`);
    assert.equal(bench.port.sent.length, consumed);
    assert.equal(bench.spoofed, 0);
    bench.close();
  });

  test("passes on received packets, link and drops of the port when frames are checked", () => {
    const bench = new Guarded();
    bench.port.incoming.push(frameFrom(OTHER));
    bench.batch.clear();
    bench.batch.addSegment(bench.memory.address, 2048);
    bench.guard.receive(bench.batch);
    assert.equal(bench.batch.packets, 1);
    bench.port.linkUp = false;
    bench.port.dropped = 3;
    assert.deepEqual([bench.guard.linkUp, bench.guard.dropped], [false, 3]);
    bench.close();
  });
});
