// Random programs of the compiler's language: the running kernel accepts what they become, and does
// what they say.
import assert from "node:assert/strict";
import test from "node:test";
import { compileFunction } from "../../src/compiler/index.ts";
import { BpfMemory, bpfProblem, loadSocketFilter, testRun } from "../../src/os/bpf.ts";
import { close } from "../../src/os/fd.ts";
import { requires } from "../support/os.ts";
import { Choices } from "../support/random-source/choices.ts";
import { MEMORY, programOf } from "../support/random-source/program.ts";
import { randomNumbers } from "../support/verifier.ts";

const problem = bpfProblem();
const skip = problem !== null && !requires("bpf") ? `no bpf(2) here: ${problem}` : false;
const PROGRAMS = process.env.BPFHV_FULL === "1" ? 2000 : 20;
const BYTES = [0, 1, 0x7f, 0x80, 0xff, 0x55];
/** The kernel may refuse safe programs for these reasons. */
const TOO_COMPLEX = /BPF program is too large|The sequence of \d+ jumps is too complex/;

test(`${PROGRAMS} random programs give the same results in the kernel as in a BigInt evaluator`, {
  skip,
}, (t) => {
  const memory = new BpfMemory(MEMORY.size);
  let ran = 0;
  for (let seed = 0; seed < PROGRAMS; seed++) {
    const random = randomNumbers(seed);
    const choices = Array.from({ length: 40 + random(160) }, () => random(2 ** 31));
    const program = programOf(new Choices(choices));
    const { code } = compileFunction(program.source, "main", { MEMORY });
    const loaded = loadSocketFilter(code, memory);
    if (!loaded.accepted) {
      assert.match(loaded.log, TOO_COMPLEX, `seed ${seed}\n${program.text}`);
      continue;
    }
    memory.bytes.fill(0);
    for (let i = 0; i < 32; i++) memory.bytes[i] = BYTES[random(BYTES.length)]!;
    memory.bytes.fill(0, 6, 8);
    const wanted = program.run(memory.bytes.slice());
    assert.equal(testRun(loaded.fd).r0, 0);
    close(loaded.fd);
    assert.deepEqual(memory.bytes.slice(), wanted, `seed ${seed}\n${program.text}`);
    ran++;
  }
  memory.close();
  t.diagnostic(`${ran} ran`);
  assert.ok(ran > PROGRAMS / 2, `only ${ran} ran`);
});
