/** What tests of rings, engine and NIC stand on: the suite's bench, and the formats to test. */
import {
  CLANG_DEVICES,
  CLANG_SIZES,
  ORIGINAL_SHAPE_DEVICES,
  ORIGINAL_SHAPE_SIZES,
} from "../../bench/clang/devices.ts";
import type { ProgramForm } from "../../src/abi/index.ts";
import type { RingFormat } from "../../src/devices/format.ts";
import { FORMATS } from "../../src/devices/registry.ts";

export { Bench, frameOf, numberOf, TestPort } from "../../src/suite/bench.ts";

export const FULL = process.env.BPFHV_FULL === "1";
export const SIZES = FULL ? [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192] : [16, 256, 8192];

/** A device, a form of its programs, and ring sizes to test. */
export interface Variant {
  readonly name: string;
  readonly device: RingFormat;
  readonly form: ProgramForm;
  readonly sizes: readonly number[];
}

/**
 * Every device with both forms of its programs, and the same rings with programs that clang made of
 * the same algorithm in C, so that the suites do not depend on our compiler alone. The last of them
 * call the driver's helpers as the original's programs do.
 */
export const VARIANTS: readonly Variant[] = [
  ...FORMATS.flatMap((device) =>
    (["helperfree", "v1"] as const).map((form) => ({
      ...{ name: `${device.name}, ${form}`, device, form, sizes: SIZES },
    })),
  ),
  ...CLANG_DEVICES.map((device) => ({
    name: `${device.name}, by clang`,
    ...{ device, form: "helperfree" as const, sizes: FULL ? CLANG_SIZES : [16, 64] },
  })),
  ...ORIGINAL_SHAPE_DEVICES.map((device) => ({
    name: `${device.name}, by clang`,
    ...{ device, form: "v1" as const, sizes: ORIGINAL_SHAPE_SIZES },
  })),
];
