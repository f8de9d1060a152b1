// The oracle here is byte images written by hand: plain offsets,
// no layout code shared with the programs.
//
//   public   16 num_bufs  24 oflags  28 min_completed_bufs
//            48 + 32 i: cookie u64, paddr u64, vaddr u64, len u32, 0
//   private  2096 prod  2100 intr  2224 cons  2228 kick_enabled  2352 qmask  2480 clear
//            2608 + 24 s: cookie u64, paddr u64, len u32, 0
import assert from "node:assert/strict";
import test from "node:test";
import { CLANG_DEVICES } from "../../../bench/clang/devices.ts";
import type { ProgramSet } from "../../abi/index.ts";
import { Interpreter } from "../../ebpf/interpreter.ts";
import { programsOf } from "../program-set.ts";
import { sring } from "./host.ts";

const BASE = 0x20_0000;
const NUMBERS = { rxp: 1, rxc: 2, rxi: 3, rxr: 4, txp: 6, txc: 7, txi: 8, txr: 9 } as const;
type Name = keyof typeof NUMBERS;
const FORMS = ["helperfree", "v1", "clang"] as const;
/** `clang`: the HELPERFREE form as clang makes it of bench/clang/sring.c. */
type Form = (typeof FORMS)[number];
const clangSring = CLANG_DEVICES.find((device) => device.name === "sring")!;

function setOf(form: Form, bufs: number): ProgramSet {
  return form === "clang"
    ? programsOf(clangSring, { bufs, form: "helperfree" })
    : programsOf(sring, { bufs, form });
}

/** Bytes in hex by offset, spaces ignored. */
type Image = Readonly<Record<number, string>>;

/** The context after registration with 16 buffers: qmask 15, kick_enabled 1. */
const FRESH: Image = { 2352: "0f000000", 2228: "01000000" };

function paint(bytes: Uint8Array, image: Image): Uint8Array {
  for (const [offset, hex] of Object.entries(image)) {
    bytes.set(Buffer.from(hex.replaceAll(" ", ""), "hex"), Number(offset));
  }
  return bytes;
}

interface Run {
  result: number;
  bytes: Uint8Array;
  helpers: string[];
}

interface Hooks {
  /** Called at the full barrier of the v1 form with the context. */
  barrier?: (bytes: Uint8Array) => void;
  alloc?: (bytes: Uint8Array) => bigint;
  bufs?: number;
}

function execute(form: Form, name: Name, bytes: Uint8Array, hooks: Hooks = {}): Run {
  const code = setOf(form, hooks.bufs ?? 16).code.get(NUMBERS[name]);
  assert.ok(code !== undefined);
  const helpers: string[] = [];
  const machine = new Interpreter(code, {
    regions: [{ name: "context", base: BASE, bytes }],
    helpers: new Map([
      [
        0x4b8f0009,
        () => {
          helpers.push("smp_mb_full");
          hooks.barrier?.(bytes);
          return 0n;
        },
      ],
      [
        0x4b8f0000,
        (r1: bigint) => {
          assert.equal(r1, BigInt(BASE));
          helpers.push("rx_pkt_alloc");
          return hooks.alloc?.(bytes) ?? 0n;
        },
      ],
    ]),
  });
  return { result: machine.call(BASE), bytes, helpers };
}

/**
 * What a publishing program of the HELPERFREE form also stores
 * when it kicks: it clears the request.
 */
const GRANTED: Image = { 2228: "00000000" };

/** Runs all forms on `before`; the whole context must then be `before` with `changes` over it. */
function expectRun(name: Name, before: Image, result: number, changes: Image, hooks: Hooks = {}) {
  const size = 2608 + 24 * (hooks.bufs ?? 16);
  for (const form of FORMS) {
    const run = execute(form, name, paint(paint(new Uint8Array(size), FRESH), before), hooks);
    assert.equal(run.result, result, `${name} ${form}`);
    const wanted = paint(paint(paint(new Uint8Array(size), FRESH), before), changes);
    if (form !== "v1" && changes[24] === "01000000") paint(wanted, GRANTED);
    assert.equal(Buffer.compare(run.bytes, wanted), 0, difference(name, form, run.bytes, wanted));
  }
}

function difference(name: string, form: string, got: Uint8Array, wanted: Uint8Array): string {
  const at = [...wanted.keys()].filter((i) => got[i] !== wanted[i]);
  return `${name} ${form}: bytes differ at ${at.map((i) => `${i} (${got[i]}, wanted ${wanted[i]})`).join(", ")}`;
}

const BUFFER_A = "1122334455667788 8877665544332211 aaaaaaaaaaaaaaaa 3c000000 00000000";
const BUFFER_B = "0200000000000000 0000002000000000 bbbbbbbbbbbbbbbb ee050000 00000000";
const SLOT_A = "1122334455667788 8877665544332211 3c000000";
const SLOT_B = "0200000000000000 0000002000000000 ee050000";
/** What a collected slot becomes in bufs[]: vaddr and the rest stay as they are. */
const TAKEN_A = "1122334455667788 8877665544332211";
const LEN_A = "3c000000";

test("txp fills the slot at prod, publishes one and requests a kick", () => {
  expectRun("txp", { 16: "01000000", 24: "ffffffff", 48: BUFFER_A }, 0, {
    24: "01000000",
    2096: "01000000",
    2608: SLOT_A,
  });
});

test("txp requests no kick while the host polls", () => {
  expectRun("txp", { 16: "01000000", 24: "ffffffff", 48: BUFFER_A, 2228: "00000000" }, 0, {
    24: "00000000",
    2096: "01000000",
    2608: SLOT_A,
  });
});

test("txp sets only KICK_NEEDED, whatever the host wrote into kick_enabled", () => {
  expectRun("txp", { 16: "01000000", 48: BUFFER_A, 2228: "feffffff" }, 0, {
    24: "01000000",
    2096: "01000000",
    2608: SLOT_A,
  });
});

test("txp wraps prod at 2^32 and uses the last slot, 15", () => {
  expectRun("txp", { 16: "01000000", 48: BUFFER_A, 2096: "ffffffff" }, 0, {
    24: "01000000",
    2096: "00000000",
    [2608 + 15 * 24]: SLOT_A,
  });
});

test("txp refuses every other number of buffers and changes nothing", () => {
  for (const count of ["00000000", "02000000", "40000000", "ffffffff", "00000100"]) {
    expectRun("txp", { 16: count, 24: "ffffffff", 48: BUFFER_A }, -1, {});
  }
});

test("rxp publishes a batch across the wrap of ring and index", () => {
  const before = { 16: "02000000", 48: BUFFER_A, 80: BUFFER_B, 2096: "ffffffff" };
  expectRun("rxp", before, 0, {
    24: "01000000",
    2096: "01000000",
    [2608 + 15 * 24]: SLOT_A,
    2608: SLOT_B,
  });
});

test("rxp with no buffers publishes nothing and succeeds", () => {
  expectRun("rxp", { 16: "00000000", 24: "ffffffff", 2096: "07000000" }, 0, { 24: "01000000" });
});

test("rxp takes 64 buffers and refuses 65", () => {
  const before: Record<number, string> = { 16: "40000000", 2096: "c0ffffff" };
  const changes: Record<number, string> = { 24: "01000000", 2096: "00000000" };
  for (let i = 0; i < 64; i++) {
    const id = i.toString(16).padStart(2, "0");
    before[48 + 32 * i] = `${id}00000000000000 00${id}000000000000 0000000000000000 ${id}000000`;
    changes[2608 + 24 * i] = `${id}00000000000000 00${id}000000000000 ${id}000000`;
  }
  expectRun("rxp", before, 0, changes, { bufs: 64 });
  expectRun("rxp", { ...before, 16: "41000000" }, -1, {}, { bufs: 64 });
  expectRun("rxp", { ...before, 16: "ffffffff" }, -1, {}, { bufs: 64 });
});

test("rxp of more than the ring holds stays inside the ring", () => {
  const before: Record<number, string> = { 16: "40000000" };
  for (let i = 0; i < 64; i++) before[48 + 32 * i] = BUFFER_A;
  const changes: Record<number, string> = { 24: "01000000", 2096: "40000000" };
  for (let s = 0; s < 16; s++) changes[2608 + 24 * s] = SLOT_A;
  expectRun("rxp", before, 0, changes);
});

for (const name of ["txc", "rxc"] as const) {
  test(`${name} returns 0 while clear equals cons`, () => {
    expectRun(name, { 2096: "05000000", 2224: "03000000", 2480: "03000000", 24: "ff" }, 0, {
      24: "00000000",
    });
  });

  test(`${name} reclaims the slot at clear`, () => {
    const slot = 2608 + 24 * 3;
    const before = {
      2096: "09000000",
      2224: "05000000",
      2480: "03000000",
      [slot]: SLOT_A,
      24: "ff",
    };
    expectRun(name, before, 1, {
      16: "01000000",
      24: "00000000",
      48: TAKEN_A,
      72: LEN_A,
      2480: "04000000",
    });
  });

  test(`${name} wraps clear at 2^32`, () => {
    const slot = 2608 + 24 * 15;
    const before = { 2096: "02000000", 2224: "01000000", 2480: "ffffffff", [slot]: SLOT_A };
    expectRun(name, before, 1, { 16: "01000000", 48: TAKEN_A, 72: LEN_A, 2480: "00000000" });
  });

  test(`${name} stays inside the ring whatever the host writes into cons`, () => {
    for (const cons of ["efbeadde", "00000080", "ffffffff"]) {
      const before = { 2224: cons, 2480: "f1ffff7f", [2608 + 24]: SLOT_A };
      expectRun(name, before, 1, {
        16: "01000000",
        48: TAKEN_A,
        72: LEN_A,
        2480: "f2ffff7f",
      });
    }
  });
}

test("rxc in the v1 form reclaims before rx_pkt_alloc and returns its failure", () => {
  const before = { 2224: "01000000", 2096: "01000000", 2608: SLOT_A };
  const bytes = () => paint(paint(new Uint8Array(2992), FRESH), before);
  const alloc = (result: bigint) => (seen: Uint8Array) => {
    assert.equal(seen[2480], 1);
    assert.equal(seen[16], 1);
    return result;
  };
  assert.deepEqual(execute("v1", "rxc", bytes(), { alloc: alloc(0n) }).result, 1);
  const failed = execute("v1", "rxc", bytes(), { alloc: alloc(-12n) });
  assert.equal(failed.result, -12);
  assert.equal(failed.bytes[2480], 1);
  // An int result: only the low half counts.
  assert.equal(execute("v1", "rxc", bytes(), { alloc: alloc(0xffff_fff4n) }).result, -12);
});

test("only the v1 form calls helpers, each once", () => {
  const before = { 16: "01000000", 28: "05000000", 2224: "01000000", 2096: "01000000" };
  const calls = (form: Form, name: Name) =>
    execute(form, name, paint(paint(new Uint8Array(2992), FRESH), before)).helpers;
  for (const name of Object.keys(NUMBERS) as Name[])
    assert.deepEqual(calls("helperfree", name), []);
  for (const name of ["txp", "rxp", "txi", "rxi"] as const) {
    assert.deepEqual(calls("v1", name), ["smp_mb_full"]);
  }
  assert.deepEqual(calls("v1", "rxc"), ["rx_pkt_alloc"]);
  for (const name of ["txc", "txr", "rxr"] as const) assert.deepEqual(calls("v1", name), []);
});

test("txi with 0 does nothing", () => {
  expectRun("txi", { 2100: "07000000", 2224: "02000000" }, 0, {});
});

test("txi arms the slot of the n-th completion, modulo 2^32", () => {
  const before = { 28: "03000000", 2096: "02000000", 2224: "00000000", 2480: "ffffffff" };
  expectRun("txi", before, 0, { 2100: "01000000" });
});

test("txi returns 1 and does not arm when enough is complete", () => {
  const before = { 28: "02000000", 2096: "05000000", 2224: "01000000", 2480: "ffffffff" };
  expectRun("txi", { ...before, 2100: "99000000" }, 1, {});
});

test("rxi with 0 disables interrupts", () => {
  expectRun("rxi", { 2100: "01000000" }, 1, { 2100: "00000000" });
});

test("rxi arms when nothing is complete", () => {
  expectRun("rxi", { 28: "01000000", 2224: "09000000", 2480: "09000000" }, 0, { 2100: "01000000" });
});

test("rxi returns 1 and leaves interrupts off when enough is complete", () => {
  const before = { 28: "02000000", 2100: "01000000", 2224: "01000000", 2480: "ffffffff" };
  expectRun("rxi", before, 1, { 2100: "00000000" });
});

test("completion between arming and the second check is seen", () => {
  const before = { 28: "01000000", 2224: "04000000", 2480: "04000000", 2096: "08000000" };
  const complete = (armed: number) => (bytes: Uint8Array) => {
    // The interrupt setting is stored before the second load of cons.
    assert.equal(new DataView(bytes.buffer).getUint32(2100, true), armed);
    bytes[2224] = 5;
  };
  const bytes = () => paint(paint(new Uint8Array(2992), FRESH), before);
  const tx = execute("v1", "txi", bytes(), { barrier: complete(4) });
  assert.equal(tx.result, 1);
  const rx = execute("v1", "rxi", bytes(), { barrier: complete(1) });
  assert.equal(rx.result, 1);
  assert.equal(rx.bytes[2100], 0);
});

test("prod is stored before kick_enabled is checked", () => {
  const bytes = paint(paint(new Uint8Array(2992), FRESH), { 16: "01000000", 2228: "00000000" });
  const run = execute("v1", "txp", bytes, {
    barrier: (seen) => {
      assert.equal(seen[2096], 1);
      seen[2228] = 1;
    },
  });
  assert.equal(run.bytes[24], 1);
});

test("txr reclaims one slot, and moves cons when the host had not completed it", () => {
  const ring = { 2096: "01000000", 2480: "ffffffff", [2608 + 24 * 15]: SLOT_A, 24: "ff" };
  const given = { 16: "01000000", 24: "00000000", 48: TAKEN_A, 72: LEN_A, 2480: "00000000" };
  // The earlier setting is gone: the next slot to be published interrupts.
  const taken = { ...given, 2100: "01000000" };
  expectRun("txr", { ...ring, 2224: "ffffffff" }, 1, { ...taken, 2224: "00000000" });
  expectRun("txr", { ...ring, 2224: "00000000" }, 1, taken);
  expectRun("txr", { ...ring, 2224: "01000000" }, 1, taken);
});

for (const [name, setting] of [
  ["txr", "03000000"],
  ["rxr", "01000000"],
] as const) {
  test(`${name} of an empty ring returns 0 and resets the interrupt setting`, () => {
    const before = { 2096: "03000000", 2224: "03000000", 2480: "03000000", 24: "ff" };
    for (const intr of ["00000000", "01000000", "02000000"]) {
      expectRun(name, { ...before, 2100: intr }, 0, { 24: "00000000", 2100: setting });
    }
  });
}

test("rxr reclaims completed and other slots in one batch", () => {
  const before = {
    2096: "01000000",
    2224: "ffffffff",
    2480: "ffffffff",
    [2608 + 24 * 15]: SLOT_A,
    2608: SLOT_B,
  };
  const taken = {
    16: "02000000",
    48: TAKEN_A,
    72: LEN_A,
    80: "0200000000000000 0000002000000000",
    104: "ee050000",
    2480: "01000000",
    2100: "01000000",
  };
  expectRun("rxr", before, 1, { ...taken, 2224: "01000000" });
  // cons in the middle of the batch, and at its end: passed, not passed.
  expectRun("rxr", { ...before, 2224: "00000000" }, 1, { ...taken, 2224: "01000000" });
  expectRun("rxr", { ...before, 2224: "01000000" }, 1, taken);
});

test("reclaim leaves an empty ring after any number of batches, odd ones included", () => {
  for (const [bufs, outstanding, batches] of [
    [16, 16, 1],
    [64, 64, 1],
    [128, 128, 2],
    [256, 192, 3],
    [256, 193, 4],
    [256, 256, 4],
  ] as const) {
    for (const used of [0, 1, 63, 64, 65, outstanding - 1, outstanding]) {
      if (used > outstanding) continue;
      for (const start of [0, 0xffff_fff0]) {
        const bytes = new Uint8Array(2608 + 24 * bufs);
        const view = new DataView(bytes.buffer);
        view.setUint32(2096, start + outstanding, true);
        view.setUint32(2224, start + used, true);
        view.setUint32(2480, start, true);
        let runs = 0;
        while (execute("helperfree", "rxr", bytes, { bufs }).result === 1) runs++;
        assert.equal(runs, batches);
        assert.equal(view.getUint32(2480, true), (start + outstanding) >>> 0);
        assert.equal(view.getUint32(2224, true), (start + outstanding) >>> 0, `used ${used}`);
      }
    }
  }
});

test("rxr takes at most 64 slots, whatever is in prod", () => {
  const bytes = new Uint8Array(2992);
  paint(bytes, { 2096: "ffffffff", 2480: "05000000", 2224: "05000000" });
  assert.equal(execute("helperfree", "rxr", bytes).result, 1);
  assert.equal(bytes[16], 64);
  assert.equal(bytes[2480], 5 + 64);
});

test("context needs 2096 + 512 + 24 n bytes: with one less the last slot is outside", () => {
  for (const bufs of [16, 8192]) {
    const publish = (size: number) => {
      const bytes = new Uint8Array(size);
      new DataView(bytes.buffer).setUint32(2096, bufs - 1, true);
      bytes[16] = 1;
      return execute("helperfree", "txp", bytes, { bufs });
    };
    assert.equal(publish(2608 + 24 * bufs).result, 0);
    // The pad of the last descriptor is not touched: 4 bytes less still do, 5 do not.
    assert.throws(() => publish(2608 + 24 * bufs - 5), /outside context/);
  }
});

test("programsOf refuses an invalid number of buffers", () => {
  for (const bufs of [0, 8, 17, 16384, 16.5, Number.NaN]) {
    assert.throws(() => programsOf(sring, { bufs, form: "helperfree" }), RangeError);
  }
});

test("programs stay within their instruction counts", (t) => {
  const lengths: Partial<Record<Name, number>> = {};
  const { code } = programsOf(sring, { bufs: 256, form: "helperfree" });
  for (const name of Object.keys(NUMBERS) as Name[]) {
    lengths[name] = (code.get(NUMBERS[name])?.length ?? 0) / 8;
  }
  t.diagnostic(`instructions: ${JSON.stringify(lengths)}`);
  assert.deepEqual(lengths, {
    rxp: 30,
    rxc: 23,
    rxi: 16,
    rxr: 37,
    txp: 22,
    txc: 23,
    txi: 17,
    txr: 26,
  });
});
