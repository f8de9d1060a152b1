/** Flow hashes: Microsoft's vectors, Toeplitz computed bit by bit, and packets without ports. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HASH_TYPE } from "../abi/index.ts";
import { FlowHash, HASH_ADDRESSES, HASH_NONE, HASH_PORTS } from "./flow-hash.ts";

/** Microsoft, "Verifying the RSS hash calculation". */
const KEY = Buffer.from(
  "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa",
  "hex",
);
const ALL = 63;
const ADDRESSES_ONLY = HASH_TYPE.IPV4 | HASH_TYPE.IPV6;
const [TCP, UDP, ICMP] = [6, 17, 1];

/** Destination, source, their ports; hash of the addresses, and with TCP. */
const IPV4: [string, number, string, number, number, number][] = [
  ["161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e8fc2, 0x51ccc178],
  ["65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718262a, 0xc626b0ea],
  ["12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0a5de, 0x5c2b394a],
  ["209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xafc7327f],
  ["202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d1809c5, 0x10e828a2],
];
const IPV6: [string, number, string, number, number, number][] = [
  [
    ...(["3ffe:2501:200:3:0:0:0:1", 1766] as const),
    ...(["3ffe:2501:200:1fff:0:0:0:7", 2794, 0x2cc18cd5, 0x40207d3d] as const),
  ],
  [
    ...(["ff02:0:0:0:0:0:0:1", 4739] as const),
    ...(["3ffe:501:8:0:260:97ff:fe40:efab", 14230, 0x0f0c461c, 0xdde51bbf] as const),
  ],
  [
    ...(["fe80:0:0:0:200:f8ff:fe21:67cf", 38024] as const),
    ...(["3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4b61e985, 0x02d1feef] as const),
  ],
];

const ipv4 = (text: string): number[] => text.split(".").map(Number);
const ipv6 = (text: string): number[] =>
  text
    .split(":")
    .flatMap((word) => [Number.parseInt(word, 16) >> 8, Number.parseInt(word, 16) & 255]);
const u16 = (n: number): number[] => [n >> 8, n & 0xff];

interface Shape {
  readonly protocol?: number;
  readonly tags?: readonly number[];
  /** Words of IPv4 options. */
  readonly options?: number;
  /** Flags and offset of the fragment. */
  readonly fragment?: number;
}

type Ends = readonly [to: number[], toPort: number, from: number[], fromPort: number];

function frame([to, toPort, from, fromPort]: Ends, shape: Shape = {}): Uint8Array {
  const { protocol = TCP, tags = [], options = 0, fragment = 0 } = shape;
  const v4 = to.length === 4;
  const tagged = tags.flatMap((type) => [...u16(type), 0, 5]);
  const ip = v4
    ? [0x45 + options, 0, 0, 60, 0, 0, ...u16(fragment), 64, protocol, 0, 0, ...from, ...to]
    : [0x60, 0, 0, 0, 0, 20, protocol, 64, ...from, ...to];
  const more = Array.from({ length: 4 * options }, (_, i) => i);
  const ports = [...u16(fromPort), ...u16(toPort)];
  const type = u16(v4 ? 0x0800 : 0x86dd);
  const head = [...new Array<number>(12).fill(2), ...tagged, ...type];
  return Uint8Array.from([...head, ...ip, ...more, ...ports, ...new Array<number>(16).fill(0)]);
}

function hashed(bytes: Uint8Array, types = ALL, key: ArrayLike<number> = KEY): [number, number] {
  const flow = new FlowHash(key, types);
  const hash = flow.of(bytes, 0, bytes.length) >>> 0;
  return [hash, flow.kind];
}

test("hashes are those that Microsoft published, with and without ports", () => {
  const vectors = [
    ...IPV4.map(([to, p, from, q, ...hashes]) => [[ipv4(to), p, ipv4(from), q], hashes] as const),
    ...IPV6.map(([to, p, from, q, ...hashes]) => [[ipv6(to), p, ipv6(from), q], hashes] as const),
  ];
  assert.equal(vectors.length, 8);
  for (const [ends, [addresses, ports]] of vectors) {
    assert.deepEqual(hashed(frame(ends)), [ports, HASH_PORTS]);
    assert.deepEqual(hashed(frame(ends, { protocol: UDP })), [ports, HASH_PORTS]);
    assert.deepEqual(hashed(frame(ends), ADDRESSES_ONLY), [addresses, HASH_ADDRESSES]);
    assert.deepEqual(hashed(frame(ends, { protocol: ICMP })), [addresses, HASH_ADDRESSES]);
    for (const tags of [[0x8100], [0x88a8, 0x8100]]) {
      assert.deepEqual(hashed(frame(ends, { tags })), [ports, HASH_PORTS], "with VLAN tags");
    }
  }
});

/** As the definition has it: bit by bit, with a key that shifts. */
function toeplitz(key: Uint8Array, input: number[]): number {
  let result = 0;
  const bit = (i: number): number => (key[i >> 3] >> (7 - (i & 7))) & 1;
  for (let i = 0; i < input.length * 8; i++) {
    if (((input[i >> 3] >> (7 - (i & 7))) & 1) === 0) continue;
    let word = 0;
    for (let k = 0; k < 32; k++) word = word * 2 + bit(i + k);
    result = (result ^ word) >>> 0;
  }
  return result;
}

test("hashes are those of the definition when keys, addresses and options are random", () => {
  let seed = 7;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  const bytes = (n: number): number[] => Array.from({ length: n }, () => random(256));
  for (let n = 0; n < 300; n++) {
    const key = Uint8Array.from(bytes(40));
    const size = n % 2 === 0 ? 4 : 16;
    const ends: Ends = [bytes(size), random(65536), bytes(size), random(65536)];
    const [to, toPort, from, fromPort] = ends;
    const options = size === 4 ? random(11) : 0;
    const input = [...from, ...to, ...u16(fromPort), ...u16(toPort)];
    const [hash] = hashed(frame(ends, { options }), ALL, key);
    assert.equal(hash, toeplitz(key, input));
  }
});

test("ports are left out of fragments, and a packet without addresses has no hash", () => {
  const [[to, p, from, q, addresses]] = IPV4;
  const ends: Ends = [ipv4(to), p, ipv4(from), q];
  for (const fragment of [0x2000, 1, 0x1fff]) {
    assert.deepEqual(hashed(frame(ends, { fragment })), [addresses, HASH_ADDRESSES]);
  }
  assert.deepEqual(hashed(frame(ends, { fragment: 0x4000 }))[1], HASH_PORTS, "may not be cut");
  const nothing: Uint8Array[] = [
    new Uint8Array(0),
    new Uint8Array(13),
    new Uint8Array(60),
    frame(ends, { tags: [0x8100, 0x8100, 0x8100] }),
    frame(ends).map((byte, i) => (i === 14 ? 0x44 : byte)),
    frame(ends).map((byte, i) => (i === 14 ? 0x65 : byte)),
  ];
  for (const bytes of nothing) assert.deepEqual(hashed(bytes), [0, HASH_NONE]);
  for (const types of [0, HASH_TYPE.UDP_V4, HASH_TYPE.TCP_V6 | HASH_TYPE.IPV6]) {
    assert.deepEqual(hashed(frame(ends), types), [0, HASH_NONE]);
  }
});

test("no byte behind the end is used when a packet ends anywhere", () => {
  const flow = new FlowHash(KEY, ALL);
  for (const [to, from] of [
    [ipv4(IPV4[0][0]), ipv4(IPV4[0][2])],
    [ipv6(IPV6[0][0]), ipv6(IPV6[0][2])],
  ]) {
    const bytes = frame([to, 1, from, 2], { tags: [0x8100] });
    for (let end = 0; end < bytes.length; end++) {
      const [a, b] = [0, 0xff].map((filler) => {
        const cut = bytes.map((byte, i) => (i < end ? byte : filler));
        return [flow.of(cut, 0, end), flow.kind];
      });
      assert.deepEqual(a, b, `of ${end} bytes`);
    }
  }
});
