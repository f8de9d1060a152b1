/**
 * What comparing our verifier with the kernel's on mutated programs brought up: ours had accepted these, because it
 * followed an operation further than kernels do. A test beside the kernel holds that it still refuses them.
 */
import { host, type Row } from "./row.ts";

const use = ["r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"];

export const KERNELS: readonly Row[] = [
  [
    "a shift by the width of the register, which kernels do not take as one by 0",
    ["r2 = 1", "r3 = 64", "r2 <<= r3", ...use],
    "POINTER_ARITHMETIC",
    3,
    /no bound/,
  ],
  [
    "a right shift by an amount that the host chooses, of what is small already",
    [host(), host(3), "r2 &= 15", "r3 &= 7", "r2 >>= r3", ...use],
    "POINTER_ARITHMETIC",
    5,
    /no bound/,
  ],
  [
    "a signed right shift by an amount that the host chooses, of what is small already",
    [host(), host(3), "r2 &= 15", "r3 &= 7", "r2 s>>= r3", ...use],
    "POINTER_ARITHMETIC",
    5,
    /no bound/,
  ],
  [
    "a 32-bit shift by an amount that the host chooses: not even the upper half is known",
    [host(), host(3), "r3 &= 7", "w2 >>= w3", "r2 >>= 32", ...use],
    "POINTER_ARITHMETIC",
    5,
    /no bound/,
  ],
  [
    "the quotient of two constants, which kernels do not work out",
    ["r2 = 100", "r3 = 10", "r2 /= r3", ...use],
    "POINTER_ARITHMETIC",
    3,
    /no bound/,
  ],
  [
    "the remainder of two constants, which kernels do not work out",
    ["r2 = 100", "r2 %= 7", ...use],
    "POINTER_ARITHMETIC",
    2,
    /no bound/,
  ],
  [
    "a sign-extending move of either sign, behind which kernels know no low bits",
    [
      ...[host(), "r2 &= 240", "r2 = (s8)r2", "r2 += 128"],
      ...["r1 += r2", "r0 = *(u8 *)(r1 + 3855)", "exit"],
    ],
    "CONTEXT_BOUNDS",
    5,
    /4096/,
  ],
];
