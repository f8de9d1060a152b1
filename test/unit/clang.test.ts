// What clang makes of our devices' programs in C is as good to the verifiers as what our compiler
// makes.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import test from "node:test";
import {
  buildObject,
  CLANG_DEVICES,
  CLANG_SIZES,
  findClang,
  ORIGINAL_SHAPE_DEVICES,
  ORIGINAL_SHAPE_SIZES,
  objectPath,
  programSet,
} from "../../bench/clang/devices.ts";
import {
  OPTIONAL_PROGRAMS,
  PROGRAM_IDS,
  PROGRAM_NAMES,
  type ProgramName,
  type ProgramSet,
} from "../../src/abi/index.ts";
import type { RingFormat } from "../../src/devices/format.ts";
import { programsOf } from "../../src/devices/program-set.ts";
import { summarise, verify } from "../../src/ebpf/index.ts";
import { BpfMemory, bpfProblem, loadSocketFilter } from "../../src/os/bpf.ts";
import { close } from "../../src/os/fd.ts";
import { requires } from "../support/os.ts";

const clang = findClang();
const noClang = clang === undefined ? "no clang here that makes eBPF" : false;
const problem = bpfProblem();
const noBpf = problem !== null && !requires("bpf") ? `no bpf(2) here: ${problem}` : false;

/** Each object: a device, a ring size. */
const OBJECTS = [
  ...CLANG_DEVICES.flatMap(({ name }) => CLANG_SIZES.map((bufs) => [name, bufs] as const)),
  ...ORIGINAL_SHAPE_DEVICES.flatMap(({ name }) =>
    ORIGINAL_SHAPE_SIZES.map((bufs) => [name, bufs] as const),
  ),
];

if (process.env.BPFHV_CREATE === "1") {
  for (const [name, bufs] of OBJECTS) {
    writeFileSync(objectPath(name, bufs), buildObject(clang!.tool, name, bufs));
  }
}

/** All eight programs, each with its properties. */
function eachProgram(
  { code }: ProgramSet,
  visit: (name: ProgramName, code: Uint8Array) => void,
): void {
  for (const name of PROGRAM_NAMES) {
    const program = code.get(PROGRAM_IDS[name]);
    if (OPTIONAL_PROGRAMS.includes(name)) continue;
    assert.ok(program !== undefined, name);
    visit(name, program);
  }
}

function expectAccepted(device: RingFormat, bufs: number, set: ProgramSet): void {
  eachProgram(set, (name, code) => {
    const contextSize = device.contextSize(bufs);
    const verdict = verify({ name, code }, { contextSize, program: name, form: set.form });
    assert.ok(verdict.accepted, summarise(verdict));
  });
}

test("built-in ring formats have programs compiled by clang", () => {
  const names = CLANG_DEVICES.map(({ name }) => name);
  assert.deepEqual(names, ["sring", "sring_gso", "vring_packed"]);
});

for (const device of CLANG_DEVICES) {
  for (const bufs of CLANG_SIZES) {
    test(`clang's ${device.name} for ${bufs} buffers is accepted`, () => {
      expectAccepted(device, bufs, programsOf(device, { bufs, form: "helperfree" }));
    });

    test(`clang's ${device.name} for ${bufs} buffers is accepted by the kernel`, {
      skip: noBpf,
    }, () => {
      const memory = new BpfMemory(device.contextSize(bufs));
      eachProgram(programsOf(device, { bufs, form: "helperfree" }), (name, code) => {
        const result = loadSocketFilter(code, memory);
        if (result.accepted) close(result.fd);
        assert.ok(result.accepted, `${name}: ${result.log}`);
      });
      memory.close();
    });

    test(`output of this machine's clang is accepted: ${device.name}, ${bufs}`, {
      skip: noClang,
    }, () => {
      expectAccepted(device, bufs, programSet(buildObject(clang!.tool, device.name, bufs)));
    });
  }

  test(`clang's ${device.name} is refused on a context that is too small`, () => {
    const set = programsOf(device, { bufs: 16, form: "helperfree" });
    const code = set.code.get(PROGRAM_IDS.txp)!;
    const contextSize = device.contextSize(16) / 2;
    assert.equal(verify({ name: "txp", code }, { contextSize, program: "txp" }).accepted, false);
  });
}

for (const device of ORIGINAL_SHAPE_DEVICES) {
  for (const bufs of ORIGINAL_SHAPE_SIZES) {
    test(`clang's ${device.name} for ${bufs} buffers is accepted, with helpers`, () => {
      expectAccepted(device, bufs, programsOf(device, { bufs, form: "v1" }));
    });

    test(`output of this machine's clang is accepted with helpers: ${device.name}, ${bufs}`, {
      skip: noClang,
    }, () => {
      expectAccepted(device, bufs, programSet(buildObject(clang!.tool, device.name, bufs), "v1"));
    });
  }
}

test("objects are small, and there is one of each", () => {
  for (const [name, bufs] of OBJECTS) {
    assert.ok(readFileSync(objectPath(name, bufs)).length < 16384, `${name}, ${bufs}`);
  }
});
