// Behaviour of every runner.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Assembler, at, R0, R1, R2, R3, R6, R10 } from "./assembler.ts";
import { EbpfError } from "./errors.ts";
import { LinearMemory } from "./jit/linear-memory.ts";
import { type Runner, type RunnerOptions, STACK_BASE, STACK_TOP } from "./runner.ts";
import { createRunner, RUNNERS, type RunnerName } from "./runners.ts";

const BASE = 0x10_0000;

for (const engine of RUNNERS) describe(engine, () => suite(engine));

function suite(engine: RunnerName): void {
  const memory = new LinearMemory(4096);
  const load = (code: Uint8Array, options?: RunnerOptions) =>
    createRunner(engine, code, { ...options, memory });

  function run(build: (p: Assembler) => unknown, options?: RunnerOptions, r1 = 0n, r2 = 0n) {
    const p = new Assembler();
    build(p);
    return load(p.assemble(), options).run(r1, r2);
  }

  function failing(build: (p: Assembler) => unknown, options?: RunnerOptions, r1 = 0n) {
    try {
      run(build, options, r1);
    } catch (error) {
      assert.ok(error instanceof EbpfError, String(error));
      return error;
    }
    assert.fail("the program ran to its end");
  }

  const context = (length: number, writable = true) => {
    const bytes = memory.allocate(length);
    return { bytes, options: { regions: [{ name: "context", base: BASE, bytes, writable }] } };
  };

  test("run returns r0 as a signed 64-bit value", () => {
    assert.equal(
      run((p) => p.alu64.mov(R0, -1).exit()),
      -1n,
    );
    assert.equal(
      run((p) => p.alu32.mov(R0, -1).exit()),
      0xffffffffn,
    );
  });

  test("call() takes r1 as a number and returns the low half of r0, signed", () => {
    const p = new Assembler().alu64.mov(R0, R1).exit().assemble();
    assert.equal(load(p).call(0xffff_fffe), -2);
    assert.equal(load(p).call(2 ** 40 + 7), 7);
  });

  test("load reaches the last byte of a region and no further", () => {
    const { bytes, options } = context(13);
    bytes.set([1, 2, 3, 4], 9);
    const loadAt = (offset: number) => (p: Assembler) => p.load(R0, R1, at(offset, 4)).exit();
    assert.equal(run(loadAt(9), options, BigInt(BASE)), 0x04030201n);
    const error = failing(loadAt(10), options, BigInt(BASE));
    assert.equal(error.code, "MEMORY");
    assert.equal(error.index, 0);
    assert.match(
      error.message,
      /load of 4 bytes at 0x10000a is outside context 0x100000\.\.0x10000d/,
    );
    assert.equal(failing(loadAt(-1), options, BigInt(BASE)).code, "MEMORY");
  });

  test("addresses near 2^64 and null hit no region", () => {
    const { options } = context(64);
    const loadFar = (p: Assembler) => p.load(R0, R1, at(16, 8)).exit();
    for (const r1 of [0n, -8n, -16n, 1n << 63n, (1n << 52n) - 16n, (1n << 64n) - 1n]) {
      assert.equal(failing(loadFar, options, r1).code, "MEMORY");
    }
  });

  test("store is refused when the region is read-only", () => {
    const { options } = context(8, false);
    const error = failing((p) => p.store(R1, at(0, 1), 1).exit(), options, BigInt(BASE));
    assert.match(error.message, /store to context, which is read-only/);
  });

  test("atomic is refused when misaligned, and returns the old value when aligned", () => {
    const { bytes, options } = context(16);
    bytes[8] = 5;
    const add = (offset: number) => (p: Assembler) =>
      p.alu64.mov(R0, 2).atomic.fetch_add(R1, at(offset, 8), R0).exit();
    assert.equal(run(add(8), options, BigInt(BASE)), 5n);
    assert.equal(bytes[8], 7);
    assert.match(failing(add(4), options, BigInt(BASE)).message, /misaligned/);
  });

  test("stack has 512 bytes, zero at the start", () => {
    const loadAt = (offset: number) => (p: Assembler) => p.load(R0, R10, at(offset, 8)).exit();
    assert.equal(run(loadAt(-512)), 0n);
    assert.equal(run(loadAt(-8)), 0n);
    assert.equal(failing(loadAt(-513)).code, "MEMORY");
    assert.equal(failing(loadAt(-7)).code, "MEMORY");
  });

  test("called function has its own frame, preserves r6 to r9, and accesses the caller's stack", () => {
    const value = run((p) =>
      p.alu64
        .mov(R6, 1)
        .store(R10, at(-8, 8), 40)
        .alu64.mov(R1, R10)
        .callLocal("f")
        .alu64.add(R0, R6)
        .load(R2, R10, at(-8, 8))
        .alu64.add(R0, R2)
        .exit()
        .label("f")
        .alu64.mov(R6, 99)
        .store(R10, at(-8, 8), 7)
        .load(R0, R1, at(-8, 8))
        .exit(),
    );
    assert.equal(value, 40n + 1n + 40n);
  });

  test("recursion fails at eight frames", () => {
    const error = failing((p) => p.label("f").callLocal("f").exit());
    assert.equal(error.code, "LIMIT");
    assert.match(error.message, /deeper than 8/);
  });

  test("endless loop fails at the step limit", () => {
    const error = failing((p) => p.label("l").goto("l"), { stepLimit: 1000 });
    assert.equal(error.code, "LIMIT");
    assert.match(error.message, /after 1000 instructions/);
  });

  test("helpers take r1 to r5 and return r0, and an unknown one is an error", () => {
    const helpers = new Map([[0x4b8f0009, (a: bigint, b: bigint) => a * 10n + b]]);
    const program = (p: Assembler) => p.alu64.mov(R1, 4).alu64.mov(R2, 2).call(0x4b8f0009).exit();
    assert.equal(run(program, { helpers }), 42n);
    assert.match(failing(program).message, /no helper 1267662857 \(0x4b8f0009\)/);
  });

  /** Helper 1 copies R3 bytes from R1 to R2, through the runner's memory. */
  function copier(p: Assembler, options: RunnerOptions) {
    const outcome = { loaded: false, stored: false };
    const machine: Runner = load(p.assemble(), {
      ...options,
      helpers: new Map([
        [
          1,
          (from, to, length) => {
            const bytes = new Uint8Array(Number(length));
            outcome.loaded = machine.memory.load(from, bytes);
            outcome.stored = machine.memory.store(to, bytes);
            return 0n;
          },
        ],
      ]),
    });
    return { machine, outcome };
  }

  test("helper reads the context and writes the stack for the program", () => {
    const { bytes, options } = context(16);
    bytes.set([1, 2, 3, 4], 12);
    const p = new Assembler()
      .store(R10, at(-8, 8), -1)
      .alu64.mov(R2, R10)
      .alu64.add(R2, -8)
      .alu64.add(R1, 12)
      .alu64.mov(R3, 4)
      .call(1)
      .load(R0, R10, at(-8, 8))
      .exit();
    const { machine, outcome } = copier(p, options);
    assert.equal(BigInt.asUintN(64, machine.run(BigInt(BASE))), 0xffff_ffff_0403_0201n);
    assert.deepEqual(outcome, { loaded: true, stored: true });
  });

  test("helper access fails when the bytes are not in one region", () => {
    const { bytes, options } = context(16);
    const p = new Assembler().alu64.mov(R1, R1).call(1).alu64.mov(R0, 0).exit();
    const { machine } = copier(p, options);
    machine.run(BigInt(BASE));
    const ten = new Uint8Array(10).fill(7);
    const outside = [0n, 1n, BigInt(BASE) - 1n, BigInt(BASE) + 7n, BigInt(STACK_TOP) - 9n];
    for (const address of [...outside, BigInt(STACK_BASE) - 1n, 1n << 63n, (1n << 64n) - 1n]) {
      assert.equal(machine.memory.load(address, ten), false, `load at ${address}`);
      assert.equal(machine.memory.store(address, ten), false, `store at ${address}`);
    }
    assert.deepEqual(ten, new Uint8Array(10).fill(7));
    assert.deepEqual(bytes, new Uint8Array(16));
    assert.equal(machine.memory.store(BigInt(BASE) + 6n, ten), true);
    assert.equal(bytes[15], 7);
  });

  test("helper reads but does not write a read-only region", () => {
    const { bytes, options } = context(16, false);
    const p = new Assembler().alu64.mov(R2, R1).alu64.mov(R3, 8).call(1).exit();
    const { machine, outcome } = copier(p, options);
    machine.run(BigInt(BASE));
    assert.deepEqual(outcome, { loaded: true, stored: false });
    assert.deepEqual(bytes, new Uint8Array(16));
  });

  test("executed counts instructions", () => {
    const p = new Assembler().alu64.mov(R3, 10).label("l").alu64.sub(R3, 1).jump.ne(R3, 0, "l");
    const machine = load(p.alu64.mov(R0, 0).exit().assemble());
    machine.run();
    assert.equal(machine.executed, 1 + 20 + 2);
  });

  test("regions are refused when they overlap, are misaligned or too low", () => {
    const code = new Assembler().alu64.mov(R0, 0).exit().assemble();
    const bytes = memory.allocate(16);
    const make = (...bases: number[]) =>
      load(code, { regions: bases.map((base) => ({ name: `r${base}`, base, bytes })) });
    assert.throws(() => make(BASE, BASE + 8), /overlap/);
    assert.throws(() => make(BASE + 4), /multiple of 8/);
    assert.throws(() => make(0), /2\^16/);
  });
}
