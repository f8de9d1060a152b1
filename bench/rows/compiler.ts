/**
 * Our compiler beside clang 19 -O2 -mcpu=v3 on the HELPERFREE programs of each ring format, for 256
 * buffers: instructions, and instructions executed in one call of each that finds one packet of
 * work. clang's are the objects in `bench/clang/objects`, so the counts depend on no machine.
 */
import { PROGRAM_IDS, type ProgramName, type ProgramSet } from "../../src/abi/index.ts";
import type { RingFormat } from "../../src/devices/format.ts";
import { programsOf } from "../../src/devices/program-set.ts";
import { FORMATS } from "../../src/devices/registry.ts";
import { Interpreter } from "../../src/ebpf/interpreter.ts";
import { CLANG_DEVICES } from "../clang/devices.ts";
import type { Bench, Result, Sample } from "../harness/bench.ts";
import { digits, markdown } from "../harness/report.ts";

const BUFS = 256;
const BASE = 0x10_0000;
const NAMES = ["txp", "txc", "txi", "txr", "rxp", "rxc", "rxi", "rxr"] as const;
const KINDS = ["instructions", "executed"] as const;

/**
 * Returns the context for a program: one buffer to publish, or one completed of two
 * published. The device's own `txp` or `rxp` publish, so that this works with any ring
 * format. The host's writes are explicit.
 */
function contextFor(device: RingFormat, set: ProgramSet, name: ProgramName): Uint8Array {
  const direction = name.startsWith("tx") ? "tx" : "rx";
  const bytes = new Uint8Array(device.contextSize(BUFS));
  device.initialise(direction, bytes.buffer, BUFS);
  const view = new DataView(bytes.buffer);
  view.setUint32(72, 64, true);
  for (let n = 0; n < 2; n++) {
    view.setUint32(16, 1, true);
    run(set.code.get(PROGRAM_IDS[`${direction}p`])!, bytes);
  }
  if (device.name === "vring_packed") {
    // The first slot's flags: used, in the first lap.
    const flags = view.getUint16(2416 + 14, true);
    view.setUint16(2416 + 14, flags ^ 0x8000, true);
  } else view.setUint32(2224, 1, true);
  view.setUint32(16, 1, true);
  view.setUint32(28, 1, true);
  return bytes;
}

/** @returns instructions executed */
function run(code: Uint8Array, bytes: Uint8Array): number {
  const machine = new Interpreter(code, { regions: [{ name: "context", base: BASE, bytes }] });
  machine.call(BASE);
  return machine.executed;
}

/** @throws Error if a program of clang leaves another context behind than ours */
function sample(part: string): Sample {
  const device = FORMATS.find(({ name }) => name === part)!;
  const ours = programsOf(device, { bufs: BUFS, form: "helperfree" });
  const clang = CLANG_DEVICES.find(({ name }) => name === part)!;
  const theirs = programsOf(clang, { bufs: BUFS, form: "helperfree" });
  const values: Record<string, number> = {};
  const add = (name: string, value: number): void => {
    values[`${part}/${name}`] = (values[`${part}/${name}`] ?? 0) + value;
  };
  for (const name of NAMES) {
    const contexts = [ours, theirs].map((set) => {
      const who = set === ours ? "ours" : "clang";
      const code = set.code.get(PROGRAM_IDS[name])!;
      const context = contextFor(device, ours, name);
      add(`instructions/${who}`, code.length / 8);
      add(`executed/${who}`, run(code, context));
      return context;
    });
    if (Buffer.compare(contexts[0]!, contexts[1]!) !== 0) {
      throw new Error(`${part} ${name}: clang's program leaves another context behind`);
    }
  }
  // Counts: the control is that counting again gives the same.
  const again = run(ours.code.get(PROGRAM_IDS.txp)!, contextFor(device, ours, "txp"));
  const more = run(ours.code.get(PROGRAM_IDS.txp)!, contextFor(device, ours, "txp"));
  return { values, controls: { [`${part}, counted again`]: [again, more] } };
}

function table({ rows }: Result): string {
  const value = (name: string): string =>
    digits(rows.find((row) => row.name === name)?.value ?? Number.NaN, 5);
  return markdown([
    ["", "instructions: ours", "clang", "executed: ours", "clang"],
    ...FORMATS.map(({ name }) => [
      name,
      ...KINDS.flatMap((kind) => [`${name}/${kind}/ours`, `${name}/${kind}/clang`]).map(value),
    ]),
  ]);
}

export const bench: Bench = {
  name: "compiler",
  about: "our compiler beside clang -O2: instructions of the guest programs, and executed ones",
  steady: true,
  // A count needs no median.
  rounds: 1,
  limit: 0,
  seconds: 30,
  parts: FORMATS.map(({ name }) => name),
  rows: FORMATS.flatMap(({ name }) =>
    KINDS.flatMap((kind) => [
      { name: `${name}/${kind}/clang`, unit: "instructions", control: `${name}, counted again` },
      {
        ...{
          name: `${name}/${kind}/ours`,
          unit: "instructions",
          baseline: `${name}/${kind}/clang`,
        },
        ...{ aim: { of: "ratio", most: 1 } as const, control: `${name}, counted again` },
      },
    ]),
  ),
  sample,
  tables: { "": table },
};
