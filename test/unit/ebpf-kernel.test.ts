// Random programs: interpreter = the Linux kernel, through BPF_PROG_TEST_RUN.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { BpfMemory, bpfProblem, loadSocketFilter, testRun } from "../../src/os/bpf.ts";
import { close } from "../../src/os/fd.ts";
import { type Peer, runSeed, seeds } from "../support/ebpf-fuzz/differential.ts";
import { CONTEXT_BYTES } from "../support/ebpf-fuzz/program.ts";
import { requires } from "../support/os.ts";

const problem = bpfProblem();
const skip = problem !== null && !requires("bpf") ? `no bpf(2) here: ${problem}` : false;
const SEEDS = seeds(process.env.BPFHV_FULL === "1" ? 100_000 : 500);

const memory = skip === false ? new BpfMemory(CONTEXT_BYTES) : undefined;
after(() => memory?.close());

/** Reasons of refusals without their numbers, and the count of each. */
const refusals = new Map<string, number>();

const kernel: Peer = (code, context) => {
  const loaded = loadSocketFilter(code, memory, { quiet: true });
  if (!loaded.accepted) {
    const lines = loaded.log.trim().split("\n");
    const reason = (lines.at(-2) ?? loaded.code).replace(/-?\d+/g, "N");
    refusals.set(reason, (refusals.get(reason) ?? 0) + 1);
    return undefined;
  }
  memory!.bytes.set(context);
  const { r0 } = testRun(loaded.fd);
  close(loaded.fd);
  return { result: `${r0 | 0}`, context: memory!.bytes.slice() };
};

test(`${SEEDS.length} random programs give the same results in the interpreter and in the kernel`, {
  skip,
}, (t) => {
  let ran = 0;
  for (const seed of SEEDS) {
    const report = runSeed(seed, kernel, true, true);
    assert.equal(report.failure, undefined, report.failure);
    if (report.ran) ran++;
  }
  t.diagnostic(`${ran} ran in the kernel; refused: ${JSON.stringify([...refusals])}`);
  assert.ok(
    ran > 0.9 * SEEDS.length,
    `only ${ran} were accepted: ${JSON.stringify([...refusals])}`,
  );
});
