// Random programs: interpreter = JIT. A failure prints its seed and the smallest program that shows
// it.
import assert from "node:assert/strict";
import test from "node:test";
import { jitPeer, type Peer, runSeed, seeds } from "../support/ebpf-fuzz/differential.ts";

const SEEDS = seeds(process.env.BPFHV_FULL === "1" ? 100_000 : 250);

test(`${SEEDS.length} random programs give the same results in the interpreter and in the JIT`, () => {
  const ends = new Map<string, number>();
  for (const seed of SEEDS) {
    const { outcome, failure } = runSeed(seed, jitPeer, seed % 4 === 0);
    assert.equal(failure, undefined, failure);
    const end = /^[A-Z]+/.exec(outcome.result)?.[0] ?? "exit";
    ends.set(end, (ends.get(end) ?? 0) + 1);
  }
  // Most run to their end, some into a fault.
  assert.ok(ends.get("exit")! > SEEDS.length / 2, String([...ends]));
  assert.ok(ends.get("MEMORY")! > SEEDS.length / 100, String([...ends]));
});

test("differential test finds and shrinks a program when a runner computes one operation wrongly", () => {
  // Opcode 0x7f is a logical right shift by a register: this peer shifts arithmetically.
  const broken: Peer = (code, context, how) => {
    const wrong = code.slice();
    for (let at = 0; at < wrong.length; at += wrong[at] === 0x18 ? 16 : 8) {
      if (wrong[at] === 0x7f) wrong[at] = 0xcf;
    }
    return jitPeer(wrong, context, how);
  };
  for (let seed = 1; seed < 500; seed++) {
    const { failure, instructions } = runSeed(seed, broken, true);
    if (failure === undefined) continue;
    const lines = failure.split("\n");
    assert.ok(lines.length < instructions, failure);
    assert.match(failure, /r\d >>= r\d/);
    return;
  }
  assert.fail("no difference in 500 programs");
});
