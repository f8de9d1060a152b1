/**
 * Programs that this project's verifier accepted and the kernel refused, found by comparing both on
 * random programs: it tracked an operation further than kernels do, or missed a rule of theirs. A
 * test with the kernel checks that they are still refused.
 */
import { end, host, type Row } from "./row.ts";

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
  [
    "a number subtracted from a stack address",
    ["r2 = r10", "r2 -= 8", "*(u64 *)(r2 + 0) = 1", ...end],
    "POINTER_ARITHMETIC",
    1,
    /subtracts from a stack address/,
  ],
  [
    "a negative number subtracted from a stack address",
    ["r2 = r10", "r2 -= -8", ...end],
    "POINTER_ARITHMETIC",
    1,
    /subtracts from a stack address/,
  ],
  [
    "an atomic at a variable offset into the stack",
    [
      ...[host(), "r2 &= 8", "*(u64 *)(r10 - 8) = 0", "*(u64 *)(r10 - 16) = 0", "r2 += r10"],
      ...["r3 = 1", "lock *(u64 *)(r2 - 16) += r3", ...end],
    ],
    "STACK_BOUNDS",
    6,
    /variable offset into the stack/,
  ],
  [
    "the distance of two addresses, taken for a number that is known",
    ["r2 = r1", "r2 += 8", "r2 -= r1", ...use],
    "POINTER_ARITHMETIC",
    3,
    /no bound/,
  ],
  [
    "an index subtracted from an address behind a constant that makes up for it",
    [
      ...["r4 = *(u8 *)(r1 + 0)", "r4 &= 7", "r1 += 8", "r1 -= r4"],
      ...["r0 = *(u8 *)(r1 + 0)", "exit"],
    ],
    "CONTEXT_BOUNDS",
    4,
    /may be negative/,
  ],
  [
    "a negative index with a constant added to the address after it",
    [...["r4 = *(s8 *)(r1 + 0)", "r1 += r4", "r1 += 128"], ...["r0 = *(u8 *)(r1 + 0)", "exit"]],
    "CONTEXT_BOUNDS",
    3,
    /may be negative/,
  ],
  [
    "a mask that a range excludes, which kernels do not compare with ranges",
    [
      ...["r4 = *(u64 *)(r1 + 16)", "r0 = 0", "if r4 s<= 7 goto +2", "if r4 & -8 goto +1"],
      ...["r0 = *(u8 *)(r1 - 8)", "exit"],
    ],
    "CONTEXT_BOUNDS",
    4,
    /before its start/,
  ],
  [
    "a 32-bit mask of a sign-extended number, behind which kernels know its bits only",
    [
      ...["r3 = *(s8 *)(r1 + 32)", "r0 = 0", "if w3 & -32 goto +2", "r1 += r3"],
      ...["r0 = *(u8 *)(r1 + 0)", "exit"],
    ],
    "POINTER_ARITHMETIC",
    3,
    /no bound/,
  ],
  [
    "a range from before a 32-bit mask, which kernels forget",
    [
      ...["r3 = *(u64 *)(r1 + 32)", "r0 = 0", "if r3 > 100 goto +3", "if w3 & 1 goto +2"],
      ...["r1 += r3", "r0 = *(u8 *)(r1 + 3976)", "exit"],
    ],
    "CONTEXT_BOUNDS",
    5,
    /4096/,
  ],
  [
    "the low half of an index, of which kernels know nothing in an address",
    [
      ...["r2 = *(s8 *)(r1 + 16)", "r0 = 0", "if w2 s> 0 goto +2", "r1 -= r2"],
      ...["r0 = *(u8 *)(r1 + 0)", "exit"],
    ],
    "CONTEXT_BOUNDS",
    4,
    /may be before its start/,
  ],
  [
    "the address of the caller's stack as a function's result",
    ["r1 = r10", "call pc+2", ...end, "r0 = r1", "exit"],
    "POINTER_LEAK",
    5,
    /returns an address/,
  ],
  [
    "a comparison of one of eight copies of a number",
    [
      ...["r2 = *(u64 *)(r1 + 16)", "r3 = r2", "r4 = r2", "r5 = r2", "r6 = r2", "r7 = r2"],
      ...["r8 = r2", "r9 = r2", "r0 = 0", "if r2 > 7 goto +9", "r0 += r2", "r0 += r3"],
      ...["r0 += r4", "r0 += r5", "r0 += r6", "r0 += r7", "r0 += r8", "r1 += r9"],
      ...["r0 = *(u8 *)(r1 + 0)", "exit"],
    ],
    "POINTER_ARITHMETIC",
    17,
    /no bound/,
  ],
  [
    "single bits of a number of which a copy had a constant added and was compared",
    [
      ...["r2 = *(u8 *)(r1 + 16)", "r2 &= 65", "r5 = r2", "r5 += 15", "r0 = 0"],
      ...["if r5 > 79 goto +2", "if r2 & 32 goto +2", "exit", "exit"],
      ...["r0 = *(u8 *)(r1 - 8)", "exit"],
    ],
    "CONTEXT_BOUNDS",
    9,
    /before its start/,
  ],
  [
    "a spilled byte that was refilled with its sign, which kernels take for the same number",
    [
      ...["r2 = *(u8 *)(r1 + 16)", "*(u8 *)(r10 - 8) = r2", "r3 = *(s8 *)(r10 - 8)", "r0 = 0"],
      ...["if r3 s< 0 goto +1", "exit", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    ],
    "POINTER_ARITHMETIC",
    6,
    /no bound/,
  ],
  [
    "the range of a number of which a copy had a constant added and was masked",
    [
      ...["r9 = *(u8 *)(r1 + 5)", "w3 = w9", "r3 += 16", "r0 = 0", "if r3 & 2 goto +2"],
      ...["if w9 <= -255 goto +1", "r0 = *(u8 *)(r1 - 8)", "exit"],
    ],
    "CONTEXT_BOUNDS",
    6,
    /before its start/,
  ],
  [
    "a number without a bound added to an unused address, after one that has a bound",
    [
      ...["r9 = 0", "r2 = *(u8 *)(r1 + 7)", "r0 = 0", "if r2 == 104 goto +1", "goto +1"],
      ...["r9 = *(u64 *)(r1 + 16)", "r9 += r1", "exit"],
    ],
    "POINTER_ARITHMETIC",
    6,
    /no bound/,
  ],
  [
    "a number compared with itself plus a constant: kernels compute the one anew from the other",
    [
      ...["r6 = r1", "r0 = *(u8 *)(r1 + 1)", "w8 = w0", "r8 += -1", "if r8 s< r0 goto +3"],
      ...["r1 = r8", "r1 += r6", "r0 = *(u8 *)(r1 + 0)", "exit"],
    ],
    "CONTEXT_BOUNDS",
    7,
    /before its start/,
  ],
  [
    "a number less than itself: kernels follow that jump, and learn something of the number",
    [
      ...[host(), "r2 &= 64", "r0 = 0", "if r2 < r2 goto +1", "exit"],
      ...["if r2 == 0 goto +1", "r0 = *(u32 *)(r5 + 0)", "exit"],
    ],
    "UNINITIALISED_REGISTER",
    6,
    /r5/i,
  ],
  [
    "a product of partly known numbers, of which kernels since 6.18 know other bits than before",
    [
      ...["r2 = *(s16 *)(r1 + 8)", "r0 = 3", "if w2 <= w0 goto +1", "exit", "w2 |= -755337130"],
      ...["w2 *= w2", "r3 = *(u8 *)(r1 + 1)", "if r2 s< r3 goto +1", "exit"],
      ...["r0 = *(u16 *)(r4 + 0)", "exit"],
    ],
    "UNINITIALISED_REGISTER",
    9,
    /r4/i,
  ],
];
