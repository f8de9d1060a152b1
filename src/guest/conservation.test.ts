/**
 * Conservation of frames: with every ring format, port and guard, each frame is either delivered
 * whole, once and in order, or counted in exactly one drop counter.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench, TestPort } from "../../test/support/guest.ts";
import { OUTSIDES, type Outside, type OutsideOptions, skipTap } from "../../test/support/net.ts";
import { FEATURES } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import { FORMATS } from "../devices/registry.ts";
import {
  countersToJson,
  DROP_COUNTERS,
  DROP_PORT,
  DROP_SPOOFED,
  PACKETS,
  type QueueCounters,
} from "../memory/counters.ts";
import { SpoofGuard, type SpoofRules } from "../net/policies/spoof-guard.ts";
import { NullPort, SinkPort } from "../net/synthetic.ts";
import { type Random, randomFrom } from "../suite/case.ts";

const FULL = process.env.BPFHV_FULL === "1";
const SEEDS = FULL ? 40 : 2;
const FRAMES = 60;
const BUFFER = 512;
const DEADLINE_MS = 5000;
const OWN = Uint8Array.of(0x52, 0x54, 0, 0xaa, 0xbb, 0xcc);
const OTHER = Uint8Array.of(0x52, 0x54, 0, 0xaa, 0xbb, 0xcd);
const POLICIES: readonly [string, SpoofRules | null][] = [
  ["no guard", null],
  ["mac", { kind: "anti-spoof", mac: OWN, vlans: null }],
  ["mac,vlan=0+10", { kind: "anti-spoof", mac: OWN, vlans: [0, 10] }],
  ["mac,vlan=0+10,tags=2", { kind: "anti-spoof", mac: OWN, vlans: [0, 10], tags: 2 }],
];

function pick<T>(random: Random, of: readonly T[]): T {
  return of[random(of.length)];
}

interface Sent {
  readonly frame: Uint8Array;
  /** A virtio_net_hdr. */
  readonly header: Uint8Array;
  /** Offset at which the checksum is stored; -1: none. */
  readonly checksumAt: number;
}

/** Returns a multicast frame with `number` in it. `tame`: the kernel forwards it unchanged. */
function frameOf(random: Random, number: number, longest: number, tame: boolean): Uint8Array {
  const tags = random(tame ? 2 : 4);
  const least = tame ? 14 + 4 * tags + 4 : 14;
  const length = pick(random, [least, least + random(8), random(longest), random(longest)]);
  const frame = Uint8Array.from({ length: Math.max(length, least) }, (_, i) => i * 3 + number);
  const view = new DataView(frame.buffer);
  view.setUint16(0, 0x0300);
  view.setUint32(2, number);
  frame.set(random(3) === 0 ? OTHER : OWN, 6);
  const types = tame ? [0x8100] : [0x8100, 0x88a8, 0x9100, 0x88e7, 60];
  for (let i = 0; i <= tags; i++) {
    const at = 12 + 4 * i;
    if (at + 2 > frame.length) break;
    view.setUint16(at, i === tags ? 0x88b5 : pick(random, types));
    if (i < tags && at + 4 <= frame.length) view.setUint16(at + 2, pick(random, [0, 10, 10, 20]));
  }
  return frame;
}

function sentOf(random: Random, number: number, longest: number, tame: boolean): Sent {
  const frame = frameOf(random, number, longest, tame);
  const view = new DataView(new ArrayBuffer(10));
  let checksumAt = -1;
  if (!tame && random(3) === 0) {
    const start = 10 + random(60);
    const offset = random(40);
    view.setUint8(0, random(8) === 0 ? 0 : 1);
    view.setUint8(1, pick(random, [0, 0, 1, 3, 4, 5, 0x81, 2, 0xff]));
    view.setUint16(2, random(100), true);
    view.setUint16(4, random(1000), true);
    view.setUint16(6, start, true);
    view.setUint16(8, offset, true);
    checksumAt = start + offset;
  }
  return { frame, header: new Uint8Array(view.buffer), checksumAt };
}

const numberOf = (frame: Uint8Array): number =>
  new DataView(frame.buffer, frame.byteOffset).getUint32(2);
const isOurs = (frame: Uint8Array): boolean => frame[0] === 3 && frame[1] === 0;

/** Opens a port that blocks and refuses at random. */
function openErratic({ frames }: OutsideOptions): Outside {
  const port = new TestPort();
  port.incoming.push(...frames);
  port.refuses = (frame) => numberOf(frame) % 5 === 0;
  return { port, sent: () => port.sent.splice(0), close: () => {} };
}

const KINDS = new Map([
  ...OUTSIDES,
  ["erratic", openErratic],
  ["null", () => ({ port: new NullPort(), sent: () => [], close: () => {} })],
]);

const drops = (counters: QueueCounters): number => {
  const json = countersToJson(counters);
  return DROP_COUNTERS.reduce((sum, name) => sum + json[name], 0);
};

class Run {
  readonly random: Random;
  readonly bench: Bench;
  readonly outside: Outside;
  readonly kind: string;
  readonly sent: Sent[] = [];
  readonly given: Uint8Array[];
  readonly left: Uint8Array[] = [];
  readonly arrived: Uint8Array[] = [];
  readonly #close: () => void;

  constructor(device: RingFormat, kind: string, rules: SpoofRules | null, seed: number) {
    this.random = randomFrom(seed);
    this.kind = kind;
    const metadata = device.features !== 0;
    const gathers = (device.features & FEATURES.SG) !== 0;
    this.bench = new Bench({
      device,
      mib: 4,
      config: { rxBufs: 16, txBufs: 16 },
      guest: { bufferSize: BUFFER, features: device.features & ~(seed % 2 ? 0 : FEATURES.TSO_V4) },
    });
    this.bench.driver.open();
    const tame = kind === "tap";
    const longest = gathers ? 4 * BUFFER : BUFFER;
    for (let n = 0; n < FRAMES; n++) {
      this.sent.push(sentOf(this.random, n, longest, tame));
    }
    const given = Array.from({ length: FRAMES }, (_, n) =>
      frameOf(this.random, 1000 + n, gathers ? 3 * 8192 : 2 * BUFFER, tame),
    );
    this.given = kind === "source" ? given.map(() => given[0]) : given;
    if (kind === "null") this.given = [];
    this.outside = KINDS.get(kind)!({ frames: this.given, metadata });
    const { port } = this.outside;
    const { pair } = this;
    pair.setPort(rules === null ? port : new SpoofGuard(port, rules, pair.tx.counters));
    this.#close = () => {
      this.outside.close();
      this.bench.close();
    };
  }

  get pair() {
    return this.bench.local.pairs[0];
  }

  /** Sends, receives and runs the host in random order. */
  play(): void {
    const { random, bench } = this;
    for (let n = 0; n < FRAMES; ) {
      const { frame, header } = this.sent[n];
      const choice = random(4);
      if (choice < 2 && bench.driver.send(0, frame, header)) n++;
      else if (choice === 2) this.#look();
      else this.#turn();
    }
  }

  /** Runs until every frame is accounted for, or until a deadline. */
  async finish(): Promise<void> {
    const until = performance.now() + DEADLINE_MS;
    for (let quiet = 0; quiet < 5 && performance.now() < until; ) {
      const moved = this.#turn();
      this.#look();
      quiet = moved === 0 ? quiet + 1 : 0;
      if (this.kind !== "tap") continue;
      await sleep(1);
      if (this.unaccounted() !== 0) quiet = 0;
    }
  }

  #turn(): number {
    const { port } = this.outside;
    if (port instanceof TestPort) port.room = this.random(4);
    this.pair.portWritable();
    return this.bench.local.turn();
  }

  #look(): void {
    this.arrived.push(...this.bench.take().filter(isOurs));
    if (this.kind !== "pcap") this.left.push(...this.outside.sent().filter(isOurs));
  }

  /**
   * Returns the number of frames neither delivered nor counted. Negative: some are both, or twice.
   */
  unaccounted(): number {
    const { port } = this.outside;
    const swallowed = port instanceof SinkPort ? port.sent : 0;
    const counted = drops(this.pair.tx.counters) + drops(this.pair.rx.counters);
    const delivered = this.left.length + this.arrived.length + swallowed;
    return this.sent.length + this.given.length - counted - delivered;
  }

  check(rules: SpoofRules | null): void {
    if (this.kind === "pcap") this.left.push(...this.outside.sent());
    assert.equal(this.unaccounted(), 0);
    this.#expectLeft(rules);
    const { rx, tx } = this.pair;
    const out = this.kind === "loopback" ? [] : this.left;
    this.#whole(this.kind === "loopback" ? this.arrived : out, rules);
    if (this.kind !== "loopback") this.#whole(this.arrived, null);
    if (this.kind !== "tap") assert.equal(rx.counters[PACKETS], this.arrived.length);
    if (this.kind === "pcap" || this.kind === "erratic") {
      const consumed = out.length + tx.counters[DROP_PORT] + tx.counters[DROP_SPOOFED];
      assert.equal(tx.counters[PACKETS], consumed);
    }
  }

  /** Without metadata and tags, the frames that leave are known exactly. */
  #expectLeft(rules: SpoofRules | null): void {
    if (!["erratic", "pcap", "tap"].includes(this.kind) || rules?.vlans) return;
    if (this.bench.nic.config.device.features !== 0) return;
    const own = (frame: Uint8Array) => Buffer.compare(frame.subarray(6, 12), OWN) === 0;
    const wanted = this.sent
      .filter(({ frame }) => rules === null || own(frame))
      .map(({ frame }) => numberOf(frame))
      .filter((number) => this.kind !== "erratic" || number % 5 !== 0);
    assert.deepEqual(this.left.map(numberOf), wanted);
  }

  /** Checks that frames are unchanged, in order, not repeated, and from an allowed source. */
  #whole(frames: readonly Uint8Array[], rules: SpoofRules | null): void {
    let last = -1;
    const order = this.kind === "loopback" ? 1000 : 0;
    for (const frame of frames) {
      const number = numberOf(frame);
      const sent = this.sent[number];
      const wanted = sent?.frame ?? this.given[number - 1000];
      const got = frame.slice();
      const at = sent?.checksumAt ?? -1;
      // A capture has the checksum that the guest left to the NIC.
      if (this.kind === "pcap" && at >= 0 && at + 2 <= wanted.length) {
        got.set(wanted.subarray(at, at + 2), at);
      }
      assert.equal(Buffer.compare(got, wanted), 0, `frame ${number}`);
      if (this.kind !== "source") {
        const place = (number + order) % 2000;
        assert.ok(place > last, `frame ${number} after ${last}`);
        last = place;
      }
      if (rules === null || sent === undefined) continue;
      assert.equal(Buffer.compare(frame.subarray(6, 12), OWN), 0, `source of frame ${number}`);
    }
  }

  close(): void {
    this.#close();
  }
}

for (const device of FORMATS) {
  for (const kind of KINDS.keys()) {
    const skip = kind === "tap" ? skipTap() : false;
    describe(`${device.name} on ${kind} delivers a frame whole or counts it once`, { skip }, () => {
      for (const [policy, rules] of POLICIES) {
        test(`with ${policy}`, async () => {
          const seeds = kind === "tap" ? Math.ceil(SEEDS / 8) : SEEDS;
          for (let seed = 1; seed <= seeds; seed++) {
            const run = new Run(device, kind, rules, seed);
            try {
              run.play();
              await run.finish();
              run.check(rules);
            } catch (error) {
              throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
            } finally {
              run.close();
            }
          }
        });
      }
    });
  }
}
