import assert from "node:assert/strict";
import test from "node:test";
import { openFds } from "../../../test/support/os.ts";
import { message, ProxyBench, table, words } from "../../../test/support/proxy.ts";

const SEED = 20250713;
const MESSAGES = process.env.BPFHV_FULL === "1" ? 100_000 : 3_000;

/** xorshift32: the same messages in every run. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

type Random = ReturnType<typeof generator>;

const SIZES = [0, 0, 8, 16, 0, 264, 16, 4, 4, 4, 0, 0, 0, 0];
const ODD = [
  0, 1, 2, 8, 9, 15, 16, 17, 256, 8192, 0x1000, 0x10000, 0x7fffffff, 0xfffff000, 0xffffffff,
];

function oddWord(random: Random): number {
  return random(3) === 0 ? random(2 ** 32) : ODD[random(ODD.length)];
}

/** Requests that are nearly right: the right size mostly, numbers that mean something mostly. */
function payloadOf(type: number, random: Random): Uint8Array {
  if (type === 3 && random(2) === 0) return words(1, 1, 16 << random(3), 16 << random(3));
  if (type === 5 && random(3) > 0) {
    const cut = random(256) * 4096;
    return random(2) === 0 ? table([0, 2 ** 20, 0]) : table([0, cut, 0], [cut, 2 ** 20 - cut, cut]);
  }
  if (type === 6 && random(2) === 0) return words(random(3), 0, random(256) * 4096, 0);
  if ((type === 7 || type === 8) && random(4) > 0) return words(random(3));
  const size = random(16) === 0 ? random(300) : (SIZES[type] ?? random(264));
  const bytes = new Uint8Array(size);
  for (let at = 0; at + 4 <= size; at += 4) {
    new DataView(bytes.buffer).setUint32(at, oddWord(random), true);
  }
  return bytes;
}

test(`${MESSAGES} random and damaged messages: each answered or the end, nothing leaks (seed ${SEED})`, () => {
  const before = openFds();
  const random = generator(SEED);
  const bench = new ProxyBench();
  const event = bench.newEventFd();
  const counts = { done: 0, refused: 0, closed: 0 };
  for (let n = 0; n < MESSAGES; n++) {
    const type = random(40) === 0 ? oddWord(random) : random(15);
    const bytes = message(type, payloadOf(type, random), random(30) === 0 ? random(16) : 1);
    const damaged = random(50) === 0;
    if (damaged) bytes[8 + random(4)] = random(256);
    const fds = Array.from({ length: random(40) === 0 ? random(20) : random(3) }, () =>
      type === 5 || random(10) === 0 ? bench.memfd : event,
    );
    // The guest scribbles over its contexts and rings all the while.
    for (let i = 0; i < 8; i++) {
      bench.view.setUint32(random(0x40000) & ~3, oddWord(random), true);
    }
    bench.send(bytes, fds);
    bench.pair.drainTx();
    bench.pair.fillRx();
    const reply = bench.reply();
    if (damaged || reply === "closed" || reply === null) {
      // Nobody knows where the next message begins: start anew.
      counts.closed++;
      if (reply !== null && reply !== "closed") bench.eventFds.push(...reply.fds);
      bench.connect();
      continue;
    }
    assert.equal(reply.type, type);
    assert.equal(reply.flags & ~8, 1);
    counts[reply.flags & 8 ? "refused" : "done"]++;
    // Only the program object comes along.
    assert.ok(reply.fds.length === (type === 4 && reply.flags === 1 ? 1 : 0));
    for (const fd of reply.fds) bench.eventFds.push(fd);
    if (bench.eventFds.length > 50) bench.closeEventFds(1);
  }
  bench.close();
  assert.equal(openFds(), before, "descriptors");
  for (const [what, count] of Object.entries(counts)) assert.ok(count > MESSAGES / 100, what);
});
