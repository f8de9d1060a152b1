/**
 * A guest driver in the same process as the NIC, over shared memory: rings, engine and programs
 * without a system call. The programs run compiled to WebAssembly.
 */
import { FORMATS } from "../../src/devices/registry.ts";
import { runEmbedded } from "../embedded.ts";
import type { Bench, Result, Sample, SampleOptions } from "../harness/bench.ts";
import { digits, markdown } from "../harness/report.ts";

const FIRST = FORMATS[0]!.name;
const UNITS = {
  "from guest": "kp/s",
  "to guest": "kp/s",
  "round trip": "us",
  "instructions sent": "a packet",
  "instructions received": "a packet",
} as const;
type Measure = keyof typeof UNITS;
const MEASURES = Object.keys(UNITS) as Measure[];

function sample(device: string, { quick }: SampleOptions): Sample {
  const packets = quick ? 4_000 : 200_000;
  // V8 optimises meanwhile.
  runEmbedded({ device, packets: quick ? 1000 : 50_000 });
  const result = runEmbedded({ device, packets });
  if (result.wrong > 0 || result.received < packets) {
    throw new Error(`${device}: ${result.received} of ${packets} received, ${result.wrong} wrong`);
  }
  const values: Record<Measure, number> = {
    "from guest": result.fromGuestPps / 1000,
    "to guest": result.toGuestPps / 1000,
    "round trip": 1000 * result.rttMs,
    "instructions sent": result.instructionsPerPacket.tx,
    "instructions received": result.instructionsPerPacket.rx,
  };
  const named = Object.entries(values).map(([name, value]) => [`${device}/${name}`, value]);
  return { values: Object.fromEntries(named) };
}

function table({ rows }: Result): string {
  const cell = (name: string): string =>
    digits(rows.find((row) => row.name === name)?.value ?? Number.NaN);
  return markdown([
    [
      ...["", "from guest, kp/s", "to guest, kp/s", "round trip, us"],
      ...["instructions per packet sent", "received"],
    ],
    ...FORMATS.map(({ name }) => [name, ...MEASURES.map((measure) => cell(`${name}/${measure}`))]),
  ]);
}

export const bench: Bench = {
  name: "embedded",
  about: "packets a second of each ring format, with the guest driver in the NIC's process",
  rounds: 5,
  limit: 0.1,
  seconds: 60,
  parts: FORMATS.map(({ name }) => name),
  rows: FORMATS.flatMap(({ name }) =>
    MEASURES.map((measure) => ({
      ...{ name: `${name}/${measure}`, unit: UNITS[measure] },
      ...(name === FIRST ? {} : { baseline: `${FIRST}/${measure}` }),
    })),
  ),
  sample,
  tables: { "": table },
};
