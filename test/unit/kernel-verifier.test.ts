// The running kernel's verifier on the programs that we ship: what it accepts here, guests accept
// there.
import assert from "node:assert/strict";
import test from "node:test";
import { PRIVATE_OFFSET, PROGRAM_IDS, PROGRAM_NAMES } from "../../src/abi/index.ts";
import { compileFunction } from "../../src/compiler/index.ts";
import { programsOf } from "../../src/devices/program-set.ts";
import { FORMATS } from "../../src/devices/registry.ts";
import { sring } from "../../src/devices/sring/host.ts";
import { Assembler, at, R0, R1 } from "../../src/ebpf/assembler.ts";
import { Interpreter } from "../../src/ebpf/interpreter.ts";
import { BpfMemory, bpfProblem, loadSocketFilter, testRun } from "../../src/os/bpf.ts";
import { close } from "../../src/os/fd.ts";
import { GIVEN, testSource } from "../support/compiler.ts";
import { openFds, requires } from "../support/os.ts";

const problem = bpfProblem();
const skip = problem !== null && !requires("bpf") ? `no bpf(2) here: ${problem}` : false;

for (const [device, bufs] of FORMATS.flatMap((d) => [16, 256, 8192].map((n) => [d, n] as const))) {
  test(`the kernel accepts ${device.name}'s HELPERFREE programs for ${bufs} buffers`, {
    skip,
  }, () => {
    const { code } = programsOf(device, { bufs, form: "helperfree" });
    for (const name of PROGRAM_NAMES) {
      const program = code.get(PROGRAM_IDS[name]);
      if (program === undefined) continue;
      const memory = new BpfMemory(device.contextSize(bufs));
      const result = loadSocketFilter(program, memory);
      if (result.accepted) close(result.fd);
      memory.close();
      assert.ok(result.accepted, `${name}: ${result.log}`);
    }
  });
}

test("kernel refuses them when the context is one descriptor too short", { skip }, () => {
  const { code } = programsOf(sring, { bufs: 16, form: "helperfree" });
  for (const name of ["txp", "txc", "txr", "rxp", "rxc", "rxr"] as const) {
    const memory = new BpfMemory(sring.contextSize(16) - 24);
    const result = loadSocketFilter(code.get(PROGRAM_IDS[name])!, memory);
    if (result.accepted) close(result.fd);
    memory.close();
    assert.ok(!result.accepted, name);
    assert.match(result.log, /invalid access to map value/);
  }
});

test("kernel accepts programs with out-of-line calls, and runs them like the interpreter", {
  skip,
}, () => {
  const { code } = compileFunction(testSource("noinline.ts"), "main", GIVEN);
  const memory = new BpfMemory(4096);
  const loaded = loadSocketFilter(code, memory);
  assert.ok(loaded.accepted, loaded.log);
  for (const seed of [1, 2, 3, 77, 1001]) {
    const bytes = new Uint8Array(4096);
    for (let i = 0; i < 16; i++) bytes[PRIVATE_OFFSET + i] = (seed * (i + 1) * 0x9e3779b1) >>> 24;
    memory.bytes.set(bytes);
    const regions = [{ name: "context", base: 0x10_0000, bytes }];
    const result = new Interpreter(code, { regions }).call(0x10_0000);
    assert.equal(testRun(loaded.fd).r0, result);
    assert.equal(Buffer.compare(memory.bytes, bytes), 0);
  }
  close(loaded.fd);
  memory.close();
});

test("program runs in the kernel on shared memory and leaves no descriptor open", {
  skip,
}, () => {
  const before = openFds();
  const memory = new BpfMemory(24);
  memory.bytes[8] = 40;
  const code = new Assembler()
    .load(R0, R1, at(8, 4))
    .alu64.add(R0, 2)
    .store(R1, at(16, 8), R0)
    .exit()
    .assemble();
  const result = loadSocketFilter(code, memory);
  assert.ok(result.accepted);
  assert.equal(testRun(result.fd).r0, 42);
  assert.equal(memory.bytes[16], 42);
  close(result.fd);
  memory.close();
  assert.equal(openFds(), before);
});
