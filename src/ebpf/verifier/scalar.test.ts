// Soundness of the abstract operators: the abstract result allows every concrete result.
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { ALU32, ALU64, JUMP32, JUMP64, swapBytes } from "../arithmetic.ts";
import { ALU_OPS, type AluOp, type Bits, JUMP_OPS, type JumpOp } from "../opcode.ts";
import { compute, loaded, movedSigned, negate, swapped, truncated, zeroExtend } from "./alu.ts";
import { assume } from "./compare.ts";
import { allows, blank, constant, MAX_S32, MAX_U32, MIN_S32, type Scalar } from "./scalar.ts";
import { bitsOfRange, Tnum } from "./tnum.ts";

const FULL = process.env.BPFHV_FULL === "1";
const RUNS = { numRuns: FULL ? 50_000 : 400 };
const U64 = (1n << 64n) - 1n;

/** Numbers near the limits of widths and signs, and arbitrary ones. */
const number64 = fc.oneof(
  fc.bigInt(0n, U64),
  fc.bigInt(0n, 300n),
  fc
    .tuple(
      fc.constantFrom(7n, 8n, 15n, 16n, 31n, 32n, 33n, 52n, 53n, 62n, 63n, 64n),
      fc.bigInt(-3n, 3n),
    )
    .map(([bit, off]) => BigInt.asUintN(64, (1n << bit) + off)),
  fc.bigInt(-300n, 0n).map((n) => BigInt.asUintN(64, n)),
);

const half = (n: bigint, shift: bigint): number => Number(BigInt.asIntN(32, n >> shift));

/** A number, and a true abstraction of it. */
const known = fc
  .record({
    n: number64,
    mask: fc.oneof(fc.constant(0n), fc.constant(U64), number64),
    below: fc.oneof(fc.constant(Infinity), fc.nat(5), fc.nat(1 << 30)),
    above: fc.oneof(fc.constant(Infinity), fc.nat(5), fc.nat(1 << 30)),
    use32: fc.boolean(),
  })
  .map(({ n, mask, below, above, use32 }) => {
    const signed = Number(BigInt.asIntN(64, n));
    const exact = Math.abs(signed) < 2 ** 52;
    const value = n & ~mask;
    const bits = new Tnum(half(value, 0n), half(value, 32n), half(mask, 0n), half(mask, 32n));
    const low = Number(n & 0xffffffffn);
    const draft = blank();
    draft.bits = bits;
    if (exact) [draft.min, draft.max] = [signed - below, signed + above];
    if (use32) {
      draft.umin32 = Math.max(0, low - below);
      draft.umax32 = Math.min(MAX_U32, low + above);
      draft.smin32 = Math.max(MIN_S32, (low | 0) - below);
      draft.smax32 = Math.min(MAX_S32, (low | 0) + above);
    }
    const abstract = draft.settled();
    assert.ok(allows(abstract, n), `${n} is not in its own abstraction`);
    return { n, abstract };
  });

const hex = (n: bigint): string => `0x${n.toString(16)}`;

function concrete(op: AluOp, bits: Bits, a: bigint, b: bigint): bigint {
  if (bits === 64) return BigInt.asUintN(64, ALU64[op](a, b));
  return BigInt(ALU32[op](Number(a & 0xffffffffn), Number(b & 0xffffffffn)) >>> 0);
}

for (const op of Object.keys(ALU_OPS) as AluOp[]) {
  for (const bits of [32, 64] as const) {
    test(`abstract result of ${op}${bits} allows the concrete one`, () => {
      fc.assert(
        fc.property(known, known, (a, b) => {
          const result = concrete(op, bits, a.n, b.n);
          const message = `${hex(a.n)} ${op}${bits} ${hex(b.n)} = ${hex(result)}`;
          assert.ok(allows(compute(op, bits, a.abstract, b.abstract), result), message);
          const b1 = constant(half(b.n, 0n), half(b.n, 32n));
          assert.ok(allows(compute(op, bits, a.abstract, b1), result), `${message}, constant`);
        }),
        RUNS,
      );
    });
  }
}

for (const op of Object.keys(JUMP_OPS) as JumpOp[]) {
  for (const bits of [32, 64] as const) {
    test(`refinement by ${op}${bits} allows the operands for which it holds`, () => {
      fc.assert(
        fc.property(known, known, fc.boolean(), (a, other, same) => {
          const b = same ? a : other;
          const low = (n: bigint) => Number(n & 0xffffffffn);
          const holds = bits === 64 ? JUMP64[op](a.n, b.n) : JUMP32[op](low(a.n), low(b.n));
          const learned = assume(op, bits, holds, a.abstract, b.abstract);
          assert.ok(learned !== null, `${hex(a.n)} ${op}${bits} ${hex(b.n)} was impossible`);
          assert.ok(allows(learned.a, a.n), `${hex(a.n)} was lost`);
          assert.ok(allows(learned.b, b.n), `${hex(b.n)} was lost`);
        }),
        RUNS,
      );
    });
  }
}

test("abstract width changes, negation, byte swaps, loads and stores allow the concrete result", () => {
  fc.assert(
    fc.property(known, ({ n, abstract }) => {
      assert.ok(allows(zeroExtend(abstract), BigInt.asUintN(32, n)));
      for (const from of [8, 16, 32] as const) {
        const extended = BigInt.asUintN(64, BigInt.asIntN(from, n));
        assert.ok(allows(movedSigned(abstract, from, 64), extended));
      }
      for (const bits of [32, 64] as const) {
        assert.ok(allows(negate(abstract, bits), BigInt.asUintN(bits, -n)));
      }
      for (const width of [16, 32, 64] as const) {
        assert.ok(allows(swapped(abstract, "le", width), BigInt.asUintN(width, n)));
        assert.ok(allows(swapped(abstract, "be", width), swapBytes(n, width / 8)));
      }
      for (const size of [1, 2, 4, 8] as const) {
        const stored = BigInt.asUintN(8 * size, n);
        assert.ok(allows(truncated(abstract, size), stored));
        assert.ok(allows(loaded(size, false), stored));
        const signed = BigInt.asUintN(64, BigInt.asIntN(8 * size, n));
        if (size < 8) assert.ok(allows(loaded(size, true), signed));
      }
    }),
    RUNS,
  );
});

test("bits of a range allow its ends and the numbers between", () => {
  const end = fc.oneof(fc.nat(), fc.maxSafeNat(), fc.nat(1000));
  fc.assert(
    fc.property(end, end, end, (a, b, c) => {
      const [min, between, max] = [a, b, c].sort((x, y) => x - y) as [number, number, number];
      const bits = bitsOfRange(min, max);
      const any = blank();
      any.bits = bits;
      for (const n of [min, between, max]) assert.ok(allows(any, BigInt(n)), `${n}`);
    }),
    RUNS,
  );
});

test("ranges that this project's programs rely on are kept", () => {
  const range = (a: Scalar) => [a.min, a.max];
  const u32 = loaded(4, false);
  const masked = compute("and", 64, u32, constant(255, 0));
  assert.deepEqual(range(masked), [0, 255]);
  const offset = compute("mul", 64, masked, constant(24, 0));
  assert.deepEqual(range(offset), [0, 6120]);
  assert.equal(offset.bits.vl | (offset.bits.ml & 7), 0);
  const up = compute("lsh", 64, masked, constant(32, 0));
  assert.deepEqual(range(compute("arsh", 64, up, constant(32, 0))), [0, 255]);
  assert.deepEqual(range(compute("sub", 32, u32, u32)), [0, MAX_U32]);
  assert.deepEqual(range(assume("le", 64, true, u32, constant(64, 0))!.a), [0, 64]);
  assert.deepEqual(range(assume("ne", 64, true, masked, constant(0, 0))!.a), [1, 255]);
  assert.deepEqual(range(assume("slt", 32, false, u32, constant(5, 0))!.a), [5, MAX_S32]);
});
