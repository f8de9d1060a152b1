// Tests of compiled programs only; ../runner.test.ts and
// ../../../test/support/ebpf-fuzz cover all runners.
import assert from "node:assert/strict";
import test from "node:test";
import { Assembler, at, R0, R1, R2, R3, R4, R5, R6 } from "../assembler.ts";
import { EbpfError } from "../errors.ts";
import { Interpreter } from "../interpreter.ts";
import { createRunner, fastestRunner, RUNNERS } from "../runners.ts";
import { loadProgram } from "../structure.ts";
import { analyseFlow } from "./flow.ts";
import { Jit } from "./jit.ts";
import { LinearMemory } from "./linear-memory.ts";

/** Compares R0 of both runners for some R1. */
function agree(code: Uint8Array, inputs: readonly bigint[]): void {
  const [jit, interpreter] = [new Jit(code), new Interpreter(code)];
  for (const r1 of inputs) {
    assert.equal(jit.run(r1), interpreter.run(r1));
    assert.equal(jit.executed, interpreter.executed);
  }
}

test("program runs when a loop has two entries", () => {
  const p = new Assembler().alu64.mov(R3, 10).jump.set(R1, 1, "second");
  p.label("first").alu64.add(R0, 1);
  p.label("second").alu64.add(R0, 100).alu64.sub(R3, 1).jump.ne(R3, 0, "first").exit();
  const code = p.assemble();
  assert.equal(analyseFlow(loadProgram(code), 0).reducible, false);
  agree(code, [0n, 1n]);
});

test("program with a thousand consecutive branches compiles and runs", () => {
  const p = new Assembler().alu64.mov(R2, R1);
  for (let n = 0; n < 1200; n++) p.alu64.add(R2, n).jump.gt(R2, 700_000, "out");
  p.alu64.mov(R0, R2).exit().label("out").alu64.mov(R0, -1).exit();
  const code = p.assemble();
  assert.ok(analyseFlow(loadProgram(code), 0).depth > 1000);
  agree(code, [0n, 1_000_000n]);
});

test("program with a thousand nested joins runs", () => {
  const p = new Assembler();
  for (let n = 0; n < 1000; n++) {
    p.jump
      .set(R1, 1 << (n % 20), `j${n}`)
      .alu64.add(R0, n)
      .label(`j${n}`)
      .alu64.mul(R0, 3);
  }
  agree(p.exit().assemble(), [0n, 0x55555n, 0xfffffn]);
});

/**
 * Sums consecutive words; `more` follows the sum in each iteration. R2 is the index, R3 the word,
 * R4 a number.
 */
function sumOfWords(more: (p: Assembler) => void): Assembler {
  const p = new Assembler().alu64.mov(R2, 0).alu64.mov(R4, 7).label("head");
  p.alu64.mov(R3, R1).alu64.add(R3, R2).load(R3, R3, at(0, 4)).alu64.add(R0, R3);
  more(p);
  return p.alu64.add(R2, 4).jump.ne(R2, 600, "head");
}

test("iteration uses the registers of the previous one", () => {
  const more: ((p: Assembler) => void)[] = [
    (p) => p.alu64.add(R5, R2),
    (p) => p.alu64.mov(R6, R5).alu64.mov(R5, R2),
    (p) => p.alu64.add(R5, R4),
    (p) => p.alu32.xor(R5, R3),
    (p) => p.alu64.mov(R6, R3).alu64.and(R6, 0xff).alu64.add(R5, R6),
    (p) => p.alu64.mov(R6, R5).alu64.add(R5, R3),
    (p) => p.alu64.add(R4, 1).alu64.add(R5, R4),
  ];
  for (const [n, each] of more.entries()) {
    const p = sumOfWords(each);
    for (const register of [R2, R3, R4, R5, R6]) p.alu64.mul(R0, 31).alu64.add(R0, register);
    const code = p.exit().assemble();
    const results = RUNNERS.map((engine) => {
      const memory = new LinearMemory(600);
      const bytes = memory.allocate(600);
      for (let i = 0; i < 600; i++) bytes[i] = i * 37 + (i >> 3);
      const regions = [{ name: "words", base: 0x10000, bytes }];
      return createRunner(engine, code, { regions, memory }).run(0x10000n);
    });
    assert.equal(results[0], results[1], `${n}`);
  }
});

test("call() accepts another r1 than the last time", () => {
  const jit = new Jit(new Assembler().alu64.mov(R0, R1).alu64.rsh(R0, 8).exit().assemble());
  const values = [5 * 2 ** 40, 256, 0, 2 ** 40, 0xffff_ff00, 5 * 2 ** 40];
  assert.deepEqual(
    values.map((r1) => jit.call(r1)),
    values.map((r1) => Math.floor(r1 / 256) | 0),
  );
});

test("bind() returns an independent function for each r1", () => {
  for (const engine of RUNNERS) {
    const code = new Assembler().alu64.mov(R0, R1).alu64.add(R0, 1).exit().assemble();
    const machine = createRunner(engine, code);
    const [one, two, again] = [machine.bind(1), machine.bind(2 ** 33 + 5), machine.bind(1)];
    assert.deepEqual([one(), two(), again(), machine.call(7), one()], [2, 6, 2, 8, 2]);
    assert.equal(machine.executed, 3);
  }
});

test("bind() works when a helper ends the program", () => {
  const code = new Assembler().call(1).alu64.mov(R0, 5).exit().assemble();
  const helpers = new Map([[1, () => 9n]]);
  const run = new Jit(code, { helpers, unwinds: (number) => number === 1 }).bind(0);
  assert.deepEqual([run(), run()], [9, 9]);
});

test("step limit holds when it is at most the length of a straight program", () => {
  const code = new Assembler().alu64.add(R0, 1).alu64.add(R0, 1).exit().assemble();
  for (const stepLimit of [2, 3]) {
    const outcomes = RUNNERS.map((engine) => {
      const machine = createRunner(engine, code, { stepLimit });
      try {
        return [machine.bind(0)(), machine.executed];
      } catch (error) {
        return [String(error), machine.executed];
      }
    });
    assert.deepEqual(outcomes[0], outcomes[1]);
    assert.equal(outcomes[0]![0] === 2, stepLimit === 3);
  }
});

test("interpreter runs the program when a region is outside the linear memory", () => {
  const code = new Assembler().alu64.mov(R0, 3).exit().assemble();
  const options = { regions: [{ name: "context", base: 0x10000, bytes: new Uint8Array(8) }] };
  assert.throws(
    () => new Jit(code, { ...options, memory: new LinearMemory(8) }),
    (error) =>
      error instanceof EbpfError &&
      error.code === "UNSUPPORTED" &&
      /context are not in the linear memory: allocate them with LinearMemory/.test(error.message),
  );
  const engine = fastestRunner(code, options);
  assert.ok(engine instanceof Interpreter);
  assert.equal(engine.run(), 3n);
});

test("interpreter runs the program when functions share too much code", () => {
  const p = new Assembler();
  for (let n = 0; n < 60; n++) p.callLocal(`f${n}`);
  p.exit();
  for (let n = 0; n < 60; n++) p.label(`f${n}`).alu64.add(R0, 1);
  for (let n = 0; n < 3000; n++) p.alu64.add(R0, 1);
  const code = p.exit().assemble();
  assert.throws(() => new Jit(code), /share code make more than 100000 instructions/);
  assert.ok(fastestRunner(code) instanceof Interpreter);
});

test("interpreter runs the program when it has too many functions", () => {
  const p = new Assembler();
  for (let n = 0; n < 7000; n++) p.callLocal(`f${n}`).exit().label(`f${n}`);
  const code = p.alu64.mov(R0, 0).exit().assemble();
  assert.throws(() => new Jit(code), /7000 functions: 256 are compiled/);
  assert.ok(fastestRunner(code) instanceof Interpreter);
});

test("interpreter runs the program when it has too many jumps for V8", () => {
  const p = new Assembler();
  for (let n = 0; n < 4001; n++) p.jump.eq(R1, n, "out");
  const code = p.label("out").exit().assemble();
  assert.throws(() => new Jit(code), /4001 conditional jumps: 4000 are compiled/);
  assert.ok(fastestRunner(code) instanceof Interpreter);
});

test("linear memory allocates aligned bytes until it is exhausted", () => {
  const memory = new LinearMemory(100_000);
  assert.equal(memory.allocate(10, 4096).byteOffset % 4096, 0);
  assert.equal(memory.allocate(10).byteOffset % 8, 0);
  assert.throws(() => memory.allocate(200_000), /200000 bytes do not fit/);
});
