/**
 * Compares our compiler with clang -O2 -mcpu=v3 on the HELPERFREE programs of each device for 256
 * buffers: instructions, and instructions executed in one call that finds one packet of work. Run
 * with `node dist/bench/compiler-vs-clang.js`.
 */
import { PROGRAM_IDS, type ProgramName, type ProgramSet } from "../src/abi/index.ts";
import type { RingFormat } from "../src/devices/format.ts";
import { programsOf } from "../src/devices/program-set.ts";
import { FORMATS } from "../src/devices/registry.ts";
import { Interpreter } from "../src/ebpf/interpreter.ts";
import { buildObject, findClang, programSet } from "./clang/devices.ts";

const BUFS = 256;
const BASE = 0x10_0000;
const NAMES = ["txp", "txc", "txi", "txr", "rxp", "rxc", "rxi", "rxr"] as const;

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

function compare(device: RingFormat, theirs: ProgramSet): void {
  const ours = programsOf(device, { bufs: BUFS, form: "helperfree" });
  const total = [0, 0, 0, 0];
  console.log(`${device.name}  instructions: ours clang  executed: ours clang  same effect`);
  for (const name of NAMES) {
    const [mine, other] = [ours, theirs].map((set) => set.code.get(PROGRAM_IDS[name])!);
    const [a, b] = [mine!, other!].map(() => contextFor(device, ours, name)) as [
      Uint8Array,
      Uint8Array,
    ];
    const row = [mine!.length / 8, other!.length / 8, run(mine!, a), run(other!, b)];
    for (const [i, n] of row.entries()) total[i]! += n;
    const same = Buffer.compare(a, b) === 0;
    console.log(name.padEnd(12), ...row.map((n) => String(n).padStart(8)), same ? "yes" : "NO");
    if (!same) process.exitCode = 1;
  }
  console.log("total       ", ...total.map((n) => String(n).padStart(8)));
}

const clang = findClang();
if (clang === undefined) console.log("no clang here that makes eBPF: nothing to compare with");
else {
  console.log(clang.version);
  for (const device of FORMATS) {
    compare(device, programSet(buildObject(clang.tool, device.name, BUFS)));
  }
}
