/**
 * Programs for tests: those of the devices, some with features that devices
 * do not use, and mutants of all of them.
 */
import { PROGRAM_IDS, PROGRAM_NAMES, type ProgramForm } from "../../src/abi/programs.ts";
import { programsOf } from "../../src/devices/program-set.ts";
import { FORMATS } from "../../src/devices/registry.ts";
import type { Program } from "../../src/ebpf/program.ts";
import { assembleText } from "../../src/ebpf/text.ts";
import type { VerifyOptions } from "../../src/ebpf/verifier/index.ts";

export interface Sample {
  readonly program: Program;
  readonly options: VerifyOptions;
}

/** Returns every program of every device in one form and size. */
export function deviceSamples(bufs: number, form: ProgramForm): Sample[] {
  return FORMATS.flatMap((device) => {
    const { code } = programsOf(device, { bufs, form });
    const contextSize = device.contextSize(bufs);
    return PROGRAM_NAMES.flatMap((name) => {
      const bytes = code.get(PROGRAM_IDS[name]);
      if (bytes === undefined) return [];
      const program = { name: `${device.name}.${name}.${bufs}`, code: bytes };
      return [{ program, options: { contextSize, form, program: name } }];
    });
  });
}

/**
 * Stack, spills, local calls, signed and 32-bit comparisons,
 * shifts, conversions of width: all safe.
 */
const SAFE: Readonly<Record<string, readonly string[]>> = {
  spill: [
    ...["r6 = r1", "r2 = *(u32 *)(r6 + 16)", "*(u64 *)(r10 - 8) = r2", "if r2 > 100 goto +5"],
    ...["r3 = *(u64 *)(r10 - 8)", "r3 <<= 3", "r6 += r3", "r0 = *(u64 *)(r6 + 2096)"],
    ...["*(u64 *)(r6 + 2096) = r0", "r0 = 0", "exit"],
  ],
  array: [
    ...["*(u64 *)(r10 - 16) = 0", "*(u64 *)(r10 - 8) = 0", "r2 = *(u32 *)(r1 + 16)", "r2 &= 15"],
    ...["r3 = r10", "r3 += -16", "r3 += r2", "*(u8 *)(r3 + 0) = 7", "r0 = *(u64 *)(r10 - 8)"],
    ...["*(u64 *)(r1 + 2096) = r0", "r0 = *(u8 *)(r3 + 0)", "r0 &= 1", "exit"],
  ],
  functions: [
    ...["r6 = r1", "r1 = *(u32 *)(r6 + 16)", "r2 = r10", "r2 += -8", "call pc+5"],
    ...["r1 = *(u64 *)(r10 - 8)", "r6 += r1", "r0 = *(u8 *)(r6 + 0)", "r0 &= 1", "exit"],
    ...["r1 &= 2047", "*(u64 *)(r2 + 0) = r1", "r0 = 0", "if r1 == 0 goto +1", "r0 = 1", "exit"],
  ],
  signed: [
    ...[
      "r2 = *(s16 *)(r1 + 16)",
      "r0 = 0",
      "if r2 s< 0 goto +6",
      "w2 += 5",
      "if w2 s> 200 goto +4",
    ],
    ...["r1 += r2", "r0 = *(u8 *)(r1 + 0)", "r0 >>= 7", "goto +1", "r0 = -1", "exit"],
  ],
  shifts: [
    ...["r2 = *(u64 *)(r1 + 16)", "r2 <<= 32", "r2 s>>= 52", "if r2 s>= 0 goto +1", "r2 = -r2"],
    ...["w3 = w2", "r3 *= 1", "r1 += r3", "r0 = *(u8 *)(r1 + 8)", "r0 >>= 7", "exit"],
  ],
  count: [
    ...["r2 = 0", "r3 = r1", "r4 = *(u32 *)(r3 + 48)", "*(u32 *)(r3 + 2096) = r4", "r3 += 4"],
    ...["r2 += 1", "if r4 & 1 goto +1", "if r2 < 32 goto -6", "*(u32 *)(r1 + 16) = r2", "r0 = 0"],
    ...["exit"],
  ],
  swaps: [
    ...["r2 = *(u16 *)(r1 + 38)", "r2 = be16 r2", "if r2 & 0xf000 goto +3", "r1 += r2"],
    ...["r0 = *(u8 *)(r1 + 0)", "if w0 s<= 1 goto +1", "r0 = 0", "exit"],
  ],
};

/** Returns handwritten samples, with a context of 4200 bytes. */
export function safeSamples(): Sample[] {
  return Object.entries(SAFE).map(([name, lines]) => ({
    program: { name, code: assembleText(lines.map((line) => line.replace("0xf000", "61440"))) },
    options: { contextSize: 4200, program: "txc" as const },
  }));
}

/** Returns random numbers below `n` from a seed, the same on every machine. */
export function randomNumbers(seed: number): (n: number) => number {
  let state = seed | 0;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  };
}

const OFFSETS = [1, -1, 4, 8, -8, 24, 32, 2096, -2096, 2048];
const IMMEDIATES = [0, 1, -1, 2, 8, 15, 16, 31, 32, 63, 64, 255, 511, 4095, 4096];
const OPCODES = [
  ...[0x07, 0x0f, 0x17, 0x1f, 0x57, 0x5f, 0x67, 0x77, 0xc7, 0x47, 0x27, 0x97, 0x37, 0xbf, 0xb7],
  ...[0x04, 0x0c, 0x14, 0x1c, 0x54, 0x5c, 0x64, 0x74, 0xc4, 0x24, 0x94, 0x34, 0xbc, 0xb4, 0x87],
  ...[0x15, 0x1d, 0x55, 0x5d, 0x25, 0x2d, 0xa5, 0xad, 0xb5, 0xbd, 0x65, 0x6d, 0xc5, 0xd5, 0x45],
  ...[0x16, 0x1e, 0x56, 0x26, 0xa6, 0xb6, 0x66, 0xc6, 0xd6, 0x05, 0x95],
  ...[0x61, 0x69, 0x71, 0x79, 0x62, 0x6a, 0x72, 0x7a, 0x63, 0x6b, 0x73, 0x7b, 0xc3, 0xdb],
];

/**
 * Returns the code with one to three small changes: a register, an offset, an immediate, an opcode,
 * two swapped instructions.
 */
export function mutant(code: Uint8Array, random: (n: number) => number): Uint8Array {
  const bytes = code.slice();
  const view = new DataView(bytes.buffer);
  const pick = (list: readonly number[]) => list[random(list.length)]!;
  for (let changes = 1 + random(3); changes > 0; changes--) {
    const at = 8 * random(bytes.length / 8);
    const registers = bytes[at + 1]!;
    const imm = view.getInt32(at + 4, true);
    switch (random(7)) {
      case 0:
        bytes[at + 1] = (registers & 0xf0) | random(11);
        break;
      case 1:
        bytes[at + 1] = (registers & 0x0f) | (random(11) << 4);
        break;
      case 2:
        view.setInt16(at + 2, view.getInt16(at + 2, true) + pick(OFFSETS), true);
        break;
      case 3:
        view.setInt32(at + 4, pick(IMMEDIATES), true);
        break;
      case 4:
        view.setInt32(at + 4, random(2) ? imm * 2 + 1 : imm + random(3) - 1, true);
        break;
      case 5:
        bytes[at] = pick(OPCODES);
        break;
      default:
        swapSlots(bytes, at, 8 * random(bytes.length / 8));
    }
  }
  return bytes;
}

function swapSlots(bytes: Uint8Array, a: number, b: number): void {
  const kept = bytes.slice(a, a + 8);
  bytes.copyWithin(a, b, b + 8);
  bytes.set(kept, b);
}
