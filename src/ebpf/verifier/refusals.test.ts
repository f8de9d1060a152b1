// Unsafe programs, one per rule and per way around it: each is refused at the right place for the right reason.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import test from "node:test";
import type { ProgramName } from "../../abi/programs.ts";
import { assembleText } from "../text.ts";
import { explain, type Rule, summarise, type VerifyOptions, verify } from "./index.ts";

const SIZE = 4096;
const v1 = (program: ProgramName): Partial<VerifyOptions> => ({ program, form: "v1" });

type Row = readonly [
  what: string,
  code: readonly string[] | Uint8Array,
  rule: Rule,
  index: number,
  message: RegExp,
  options?: Partial<VerifyOptions>,
];

/** r2 = what the host wrote at `offset` of the context. */
const host = (register = 2, bits = 32): string => `r${register} = *(u${bits} *)(r1 + 16)`;
const end = ["r0 = 0", "exit"];
const ALLOC = 0x4b8f0000;
const CSUM_GET = ALLOC + 1;
const MD_GET = ALLOC + 3;
const MD_SET = ALLOC + 4;
const PRINT = ALLOC + 10;

const CONTEXT: readonly Row[] = [
  [
    "a load one past the end",
    ["r0 = *(u8 *)(r1 + 4096)", "exit"],
    "CONTEXT_BOUNDS",
    0,
    /end at 4097: .*4096 bytes/,
  ],
  [
    "a load across the end",
    ["r0 = *(u64 *)(r1 + 4089)", "exit"],
    "CONTEXT_BOUNDS",
    0,
    /end at 4097/,
  ],
  [
    "a load before the start",
    ["r0 = *(u8 *)(r1 - 1)", "exit"],
    "CONTEXT_BOUNDS",
    0,
    /before its start/,
  ],
  [
    "a store one past the end",
    ["*(u8 *)(r1 + 4096) = 1", ...end],
    "CONTEXT_BOUNDS",
    0,
    /store of 1 bytes/,
  ],
  [
    "a store across the end",
    ["*(u32 *)(r1 + 4093) = 1", ...end],
    "CONTEXT_BOUNDS",
    0,
    /end at 4097/,
  ],
  [
    "a store before the start",
    ["*(u64 *)(r1 - 8) = 1", ...end],
    "CONTEXT_BOUNDS",
    0,
    /before its start/,
  ],
  [
    "an atomic past the end",
    ["r2 = 1", "lock *(u64 *)(r1 + 4096) += r2", ...end],
    "CONTEXT_BOUNDS",
    1,
    /atomic of 8 bytes/,
  ],
  [
    "an index without a bound",
    [host(), "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    1,
    /no bound \(0\.\.4294967295\)/,
  ],
  [
    "a mask one bit too wide",
    [host(), "r2 &= 8191", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "CONTEXT_BOUNDS",
    3,
    /context \+ 0\.\.8191 may end at 8192/,
  ],
  [
    "a right mask with an offset one too large",
    [host(), "r2 &= 4095", "r1 += r2", "r0 = *(u8 *)(r1 + 1)", "exit"],
    "CONTEXT_BOUNDS",
    3,
    /1\.\.4096 may end at 4097/,
  ],
  [
    "a right mask, and an access that is wider than one",
    [host(), "r2 &= 4095", "r1 += r2", "r0 = *(u16 *)(r1 + 0)", "exit"],
    "CONTEXT_BOUNDS",
    3,
    /end at 4097/,
  ],
  [
    "a bound one too high",
    [host(), "r0 = 0", "if r2 > 4096 goto +2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "CONTEXT_BOUNDS",
    4,
    /0\.\.4096/,
  ],
  [
    "a bound the wrong way round",
    [host(), "r0 = 0", "if r2 < 4096 goto +2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    3,
    /4096\.\.4294967295/,
  ],
  [
    "a signed bound for a 64-bit index",
    [host(2, 64), "r0 = 0", "if r2 s> 100 goto +2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    3,
    /no bound/,
  ],
  [
    "a bound on the low half of a 64-bit index",
    [host(2, 64), "r0 = 0", "if w2 > 100 goto +2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    3,
    /no bound/,
  ],
  [
    "a bound on a copy of the low half",
    [
      host(2, 64),
      "w3 = w2",
      "r0 = 0",
      "if r3 > 100 goto +2",
      "r1 += r2",
      "r0 = *(u8 *)(r1 + 0)",
      "exit",
    ],
    "POINTER_ARITHMETIC",
    4,
    /no bound/,
  ],
  [
    "a bound on another read of the same field",
    [host(2), host(3), "r0 = 0", "if r3 > 100 goto +2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    4,
    /no bound/,
  ],
  [
    "a bound that a later change undoes",
    [
      host(),
      "r0 = 0",
      "if r2 > 4095 goto +3",
      "r2 += 1",
      "r1 += r2",
      "r0 = *(u8 *)(r1 + 0)",
      "exit",
    ],
    "CONTEXT_BOUNDS",
    5,
    /1\.\.4096/,
  ],
  [
    "an index that may be negative after subtraction",
    [host(), "r2 &= 15", "r2 -= 1", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "CONTEXT_BOUNDS",
    4,
    /-1\.\.14 may be before/,
  ],
  [
    "a negative index that the offset makes up for, which kernels refuse",
    [host(), "r2 &= 15", "r2 -= 32", "r1 += r2", "r0 = *(u8 *)(r1 + 64)", "exit"],
    "CONTEXT_BOUNDS",
    4,
    /kernels refuse an index that may be negative/,
  ],
  [
    "a 32-bit subtraction that wraps",
    [host(), "r2 &= 15", "w2 -= 1", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    3,
    /no bound/,
  ],
  [
    "a multiplication that goes too far",
    [host(), "r2 &= 127", "r2 *= 33", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "CONTEXT_BOUNDS",
    4,
    /0\.\.4191 may end at 4192/,
  ],
  [
    "a multiplication that wraps",
    [host(), "r2 *= r2", "r2 *= r2", "r2 *= r2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    4,
    /no bound/,
  ],
  [
    "a sign-extended byte",
    ["r2 = *(s8 *)(r1 + 16)", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "CONTEXT_BOUNDS",
    2,
    /-128\.\.127 may be before/,
  ],
  [
    "a shift by an amount that the host chooses",
    [host(), "r3 = 1", "r2 &= 63", "r3 <<= r2", "r1 += r3", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    4,
    /no bound/,
  ],
  [
    "a right shift by one bit too few",
    [host(), "r2 >>= 19", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "CONTEXT_BOUNDS",
    3,
    /0\.\.8191/,
  ],
  [
    "a remainder, which kernels do not follow",
    [host(), "r2 %= 16", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    2,
    /no bound/,
  ],
  [
    "a byte-swapped index",
    [host(), "r2 &= 15", "r2 = be32 r2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    3,
    /no bound/,
  ],
  [
    "xor after the mask",
    [host(), "r2 &= 15", "r2 ^= 4096", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "CONTEXT_BOUNDS",
    4,
    /4096\.\.4111/,
  ],
  [
    "a bound on one path only",
    [host(), host(3), "if r3 == 0 goto +1", "r2 &= 15", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    4,
    /no bound/,
  ],
  [
    "a test of one bit as a bound",
    [host(), "r0 = 0", "if r2 & 4096 goto +2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    3,
    /no bound/,
  ],
  [
    "adding up small steps to beyond the end",
    [host(), "r2 &= 2047", "r1 += r2", "r1 += r2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "CONTEXT_BOUNDS",
    5,
    /end at 6142/,
  ],
  [
    "an index bounded by what the host wrote",
    [host(), host(3), "r0 = 0", "if r2 > r3 goto +2", "r1 += r2", "r0 = *(u8 *)(r1 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    4,
    /no bound/,
  ],
  [
    "a bound that was stored in the context and read again",
    [
      host(),
      "r2 &= 15",
      "*(u32 *)(r1 + 2096) = r2",
      "r2 = *(u32 *)(r1 + 2096)",
      "r1 += r2",
      "r0 = *(u8 *)(r1 + 0)",
      "exit",
    ],
    "POINTER_ARITHMETIC",
    4,
    /no bound/,
  ],
  [
    "the result of an atomic as an index",
    [
      "r2 = 1",
      "w2 = atomic_fetch_add((u32 *)(r1 + 2096), w2)",
      "r1 += r2",
      "r0 = *(u8 *)(r1 + 0)",
      "exit",
    ],
    "POINTER_ARITHMETIC",
    2,
    /no bound/,
  ],
  [
    "a context that is smaller than the program thinks",
    ["r0 = *(u64 *)(r1 + 2096)", "exit"],
    "CONTEXT_BOUNDS",
    0,
    /context has 2096 bytes/,
    { contextSize: 2096 },
  ],
  [
    "a misaligned atomic",
    ["r2 = 1", "lock *(u32 *)(r1 + 2098) += w2", ...end],
    "ATOMIC_ALIGNMENT",
    1,
    /2098 is not aligned/,
  ],
  [
    "an atomic at an index that may be odd",
    [host(), "r2 &= 15", "r1 += r2", "r3 = 1", "lock *(u64 *)(r1 + 2096) += r3", ...end],
    "ATOMIC_ALIGNMENT",
    4,
    /2096\.\.2111 is not aligned/,
  ],
];

const STACK: readonly Row[] = [
  [
    "a store above the frame",
    ["*(u8 *)(r10 + 0) = 1", ...end],
    "STACK_BOUNDS",
    0,
    /outside the frame's 512 bytes/,
  ],
  [
    "a store across the frame's end",
    ["*(u64 *)(r10 - 7) = 1", ...end],
    "STACK_BOUNDS",
    0,
    /stack \+ -7/,
  ],
  ["a store below the frame", ["*(u8 *)(r10 - 513) = 1", ...end], "STACK_BOUNDS", 0, /-513/],
  [
    "a store through an index below the frame",
    [host(), "r2 &= 15", "r3 = r10", "r3 += -516", "r3 += r2", "*(u8 *)(r3 + 0) = 1", ...end],
    "STACK_BOUNDS",
    5,
    /-516\.\.-501/,
  ],
  [
    "a misaligned store",
    ["*(u32 *)(r10 - 6) = 1", ...end],
    "STACK_ALIGNMENT",
    0,
    /multiple of|not aligned/,
  ],
  [
    "a load of what was not written",
    ["r0 = *(u64 *)(r10 - 8)", "exit"],
    "STACK_UNINITIALISED",
    0,
    /bytes of -8\.\.-1 were written/,
  ],
  [
    "a load of which half was written",
    ["*(u32 *)(r10 - 8) = 1", "r0 = *(u64 *)(r10 - 8)", "exit"],
    "STACK_UNINITIALISED",
    1,
    /not all bytes/,
  ],
  [
    "a load of what one path wrote",
    [host(), "if r2 == 0 goto +1", "*(u64 *)(r10 - 8) = 1", "r0 = *(u64 *)(r10 - 8)", "exit"],
    "STACK_UNINITIALISED",
    3,
    /on this path/,
  ],
  [
    "stack that is written where its address is not 0, which kernels are not sure of",
    [
      ...["r0 = 0", "if r10 == 0 goto +1", "*(u64 *)(r10 - 8) = 1"],
      ...["r0 = *(u64 *)(r10 - 8)", "exit"],
    ],
    "STACK_UNINITIALISED",
    3,
    /on this path/,
  ],
  [
    "a load at an index beyond what was written",
    [
      "*(u64 *)(r10 - 8) = 1",
      host(),
      "r2 &= 8",
      "r3 = r10",
      "r3 += -16",
      "r3 += r2",
      "r0 = *(u64 *)(r3 + 0)",
      "exit",
    ],
    "STACK_UNINITIALISED",
    6,
    /-16\.\.-9/,
  ],
  [
    "part of an address as a number",
    ["*(u64 *)(r10 - 8) = r1", "r0 = *(u32 *)(r10 - 8)", "exit"],
    "POINTER_LEAK",
    1,
    /takes an address.* apart/,
  ],
  [
    "an address that was partly overwritten",
    ["*(u64 *)(r10 - 8) = r1", "*(u8 *)(r10 - 8) = 1", "r2 = *(u64 *)(r10 - 8)", ...end],
    "STACK_UNINITIALISED",
    2,
    /not all bytes/,
  ],
  [
    "an overwrite at an index where an address may be",
    [
      "*(u64 *)(r10 - 16) = r1",
      "*(u64 *)(r10 - 8) = 0",
      host(),
      "r2 &= 8",
      "r3 = r10",
      "r3 += -16",
      "r3 += r2",
      "*(u64 *)(r3 + 0) = 7",
      ...end,
    ],
    "POINTER_LEAK",
    7,
    /may overwrite part of an address/,
  ],
  [
    "an address stored at an index",
    [
      "*(u64 *)(r10 - 16) = 0",
      "*(u64 *)(r10 - 8) = 0",
      host(),
      "r2 &= 8",
      "r3 = r10",
      "r3 += -16",
      "r3 += r2",
      "*(u64 *)(r3 + 0) = r1",
      ...end,
    ],
    "POINTER_LEAK",
    7,
    /cannot be followed/,
  ],
  [
    "a spilled index of which only the low half was stored",
    [
      host(2, 64),
      "*(u64 *)(r10 - 8) = r2",
      "if w2 > 100 goto +3",
      "r2 = *(u64 *)(r10 - 8)",
      "r1 += r2",
      "r0 = *(u8 *)(r1 + 0)",
      ...end,
    ],
    "POINTER_ARITHMETIC",
    4,
    /no bound/,
  ],
  [
    "a number in place of a spilled address",
    [
      "*(u64 *)(r10 - 8) = r1",
      "*(u64 *)(r10 - 8) = 4096",
      "r2 = *(u64 *)(r10 - 8)",
      "r0 = *(u8 *)(r2 + 0)",
      "exit",
    ],
    "NOT_A_POINTER",
    3,
    /r2, which is a number \(4096\)/,
  ],
];

const REGISTERS: readonly Row[] = [
  ["r0 not set at the end", ["exit"], "UNINITIALISED_REGISTER", 0, /r0 is read, but not set/],
  ["a register that was never set", ["r0 = r7", "exit"], "UNINITIALISED_REGISTER", 0, /r7 is read/],
  ["r2 at the start", ["r0 = r2", "exit"], "UNINITIALISED_REGISTER", 0, /r2 is read/],
  [
    "a register set on one path",
    [host(), "if r2 == 0 goto +1", "r3 = 1", "r0 = r3", "exit"],
    "UNINITIALISED_REGISTER",
    3,
    /r3 is read/,
  ],
  [
    "an operand that was never set",
    ["r0 = 0", "r0 += r4", "exit"],
    "UNINITIALISED_REGISTER",
    1,
    /r4 is read/,
  ],
  [
    "storing what was never set",
    ["*(u64 *)(r1 + 2096) = r5", ...end],
    "UNINITIALISED_REGISTER",
    0,
    /r5 is read/,
  ],
  [
    "comparing what was never set",
    ["r0 = 0", "if r3 == 0 goto +0", "exit"],
    "UNINITIALISED_REGISTER",
    1,
    /r3 is read/,
  ],
  [
    "an access through a number",
    ["r2 = 4096", "r0 = *(u8 *)(r2 + 0)", "exit"],
    "NOT_A_POINTER",
    1,
    /a number \(4096\)/,
  ],
  [
    "following an address out of the context",
    ["r2 = *(u64 *)(r1 + 0)", "r0 = *(u64 *)(r2 + 0)", "exit"],
    "NOT_A_POINTER",
    1,
    /a number \(any number\)/,
  ],
  [
    "an access through null",
    ["r2 = 0", "*(u8 *)(r2 + 0) = 1", ...end],
    "NOT_A_POINTER",
    1,
    /a number \(0\)/,
  ],
  ["r10 written", patched(["r9 = 1", ...end], 0, 1, 10), "STRUCTURE", 0, /r10 is read-only/],
];

const ADDRESSES: readonly Row[] = [
  [
    "the context's address into the context",
    ["*(u64 *)(r1 + 2096) = r1", ...end],
    "POINTER_LEAK",
    0,
    /stores an address \(context \+ 0\)/,
  ],
  ["half of it", ["*(u32 *)(r1 + 2096) = r1", ...end], "POINTER_LEAK", 0, /into the context/],
  [
    "the stack's address into the context",
    ["*(u64 *)(r1 + 2096) = r10", ...end],
    "POINTER_LEAK",
    0,
    /fp \+ 0/,
  ],
  [
    "an address by an atomic",
    ["lock *(u64 *)(r1 + 2096) += r10", ...end],
    "POINTER_LEAK",
    0,
    /an atomic puts an address/,
  ],
  [
    "an address by an exchange",
    ["r2 = r1", "r2 = xchg((u64 *)(r1 + 2096), r2)", ...end],
    "POINTER_LEAK",
    1,
    /an atomic puts an address/,
  ],
  [
    "an address as the expected value",
    ["r0 = r1", "r2 = 0", "r0 = cmpxchg((u64 *)(r1 + 2096), r0, r2)", ...end],
    "POINTER_ARITHMETIC",
    2,
    /r0 is an address/,
  ],
  ["an address returned", ["r0 = r1", "exit"], "POINTER_LEAK", 1, /returns an address/],
  [
    "the distance of stack and context",
    ["r2 = r1", "r2 -= r10", "*(u64 *)(r1 + 2096) = r2", ...end],
    "POINTER_LEAK",
    1,
    /would tell addresses/,
  ],
  [
    "multiplying an address",
    ["r1 *= 2", ...end],
    "POINTER_ARITHMETIC",
    0,
    /64-bit mul on an address/,
  ],
  [
    "masking an address",
    ["r2 = r1", "r2 &= -8", ...end],
    "POINTER_ARITHMETIC",
    1,
    /and on an address/,
  ],
  [
    "32-bit arithmetic on an address",
    ["r2 = r1", "w2 += 1", ...end],
    "POINTER_ARITHMETIC",
    1,
    /32-bit add/,
  ],
  ["half of an address copied", ["w2 = w1", ...end], "POINTER_ARITHMETIC", 0, /half of an address/],
  [
    "an address subtracted from a number",
    ["r2 = 8", "r2 -= r1", ...end],
    "POINTER_ARITHMETIC",
    1,
    /sub on an address/,
  ],
  [
    "two addresses added",
    ["r2 = r1", "r2 += r1", ...end],
    "POINTER_ARITHMETIC",
    1,
    /add on an address/,
  ],
  [
    "an address negated",
    ["r2 = r1", "r2 = -r2", ...end],
    "POINTER_ARITHMETIC",
    1,
    /a number is needed/,
  ],
  [
    "an address byte-swapped",
    ["r2 = r1", "r2 = bswap64 r2", ...end],
    "POINTER_ARITHMETIC",
    1,
    /a number is needed/,
  ],
  [
    "an address compared with a number",
    ["r0 = 0", "if r1 > 4096 goto +0", "exit"],
    "POINTER_LEAK",
    1,
    /compares an address/,
  ],
  [
    "half of an address compared",
    ["r0 = 0", "if w1 == 0 goto +0", "exit"],
    "POINTER_LEAK",
    1,
    /compares an address/,
  ],
  [
    "an address moved beyond all bounds",
    ["r2 = 0x7fffffff", "r1 += r2", ...end],
    "POINTER_ARITHMETIC",
    1,
    /no bound/,
  ],
];

const CONTROL: readonly Row[] = [
  ["an endless loop", ["r0 = 0", "goto -1"], "ENDLESS_LOOP", 1, /nothing changed/],
  [
    "a loop that the host ends",
    [host(), "r0 = 0", "r2 = *(u32 *)(r1 + 16)", "if r2 != 0 goto -2", "exit"],
    "ENDLESS_LOOP",
    2,
    /comes back here after 2/,
  ],
  [
    "a loop whose counter never moves",
    ["r3 = 0", "r4 = 1", "if r3 > 10 goto +2", "r4 += 0", "goto -3", ...end],
    "ENDLESS_LOOP",
    2,
    /nothing changed/,
  ],
  [
    "a loop whose bound moves along",
    ["r3 = 0", "r4 = 10", "r3 += 1", "r4 += 1", "if r3 < r4 goto -3", ...end],
    "TOO_COMPLEX",
    2,
    /still undecided/,
    { budget: 20000 },
  ],
  [
    "a loop whose bound is the host's",
    [host(), "r3 = 0", "r3 += 1", "if r3 < r2 goto -2", ...end],
    "TOO_COMPLEX",
    2,
    /instruction \d alone was followed \d+ times/,
    { budget: 20000 },
  ],
  [
    "a counter that steps over its end",
    ["r3 = 0", "r3 += 2", "if r3 != 65 goto -2", ...end],
    "TOO_COMPLEX",
    1,
    /undecided/,
    { budget: 20000 },
  ],
  [
    "a loop of too many rounds",
    ["r3 = 0", "r3 += 1", "if r3 < 1000000000 goto -2", ...end],
    "TOO_COMPLEX",
    1,
    /undecided/,
    { budget: 20000 },
  ],
  [
    "a jump out of the program",
    ["r0 = 0", "if r0 == 0 goto +5", "exit"],
    "STRUCTURE",
    1,
    /jumps to 7: outside/,
  ],
  ["a jump before the program", ["r0 = 0", "goto -3"], "STRUCTURE", 1, /jumps to -1: outside/],
  [
    "a jump into a wide load",
    ["r0 = 0", "if r0 == 0 goto +1", "r1 = 0x1122334455667788 ll", "exit"],
    "STRUCTURE",
    1,
    /second half of a 64-bit load/,
  ],
  ["control off the end", ["r0 = 0"], "STRUCTURE", 0, /runs off the end/],
  [
    "an instruction that nothing reaches",
    ["r0 = 0", "exit", "r0 = 1", "exit"],
    "UNREACHABLE",
    2,
    /no path leads/,
  ],
  ["recursion", ["call pc+1", "exit", "call pc-1", "exit"], "CALL_DEPTH", 2, /calls itself/],
  ["nine functions deep", chain(9, 8), "CALL_DEPTH", 22, /deeper than 8/],
  [
    "more stack than there is, together",
    chain(3, 256),
    "STACK_DEPTH",
    -1,
    /768 bytes of stack together/,
  ],
  [
    "a jump into another function",
    ["call pc+2", "r0 = 0", "exit", "r0 = 0", "if r0 == 1 goto -4", "exit"],
    "STRUCTURE",
    4,
    /in another function/,
  ],
  [
    "control into the next function",
    ["r0 = 0", "call pc+1", "r0 = 0", "r0 = 0", "exit"],
    "STRUCTURE",
    2,
    /into the next function/,
  ],
  [
    "a call through a register",
    ["r2 = 0", "callx r2", "exit"],
    "UNSUPPORTED",
    1,
    /a call through a register/,
  ],
  ["a kernel function", ["call btf 7", "exit"], "UNSUPPORTED", 0, /kernel function/],
  ["a shift by its width", ["r0 = 1", "r0 <<= 64", "exit"], "CONSTANT", 1, /shifts 64 bits by 64/],
  [
    "a 32-bit shift by its width",
    ["r0 = 1", "w0 >>= 32", "exit"],
    "CONSTANT",
    1,
    /shifts 32 bits by 32/,
  ],
  ["a division by zero", ["r0 = 1", "r0 /= 0", "exit"], "CONSTANT", 1, /divides by the constant 0/],
  [
    "too many instructions",
    new Uint8Array(16385 * 8),
    "SIZE",
    -1,
    /16385 instructions: the program window holds 16384/,
  ],
  ["no instruction at all", new Uint8Array(0), "STRUCTURE", -1, /empty/],
  ["half an instruction", new Uint8Array(12), "STRUCTURE", -1, /not a multiple/],
  [
    "an unknown opcode",
    new Uint8Array([0xff, 0, 0, 0, 0, 0, 0, 0]),
    "STRUCTURE",
    0,
    /unknown opcode|selects no operation/,
  ],
  [
    "an unused field that is not zero",
    patched(["r0 = 0", "exit"], 1, 2, 1),
    "STRUCTURE",
    1,
    /must be 0/,
  ],
];

const FUNCTIONS: readonly Row[] = [
  [
    "r1 after a call",
    ["call pc+2", "r0 = r1", "exit", "r0 = 0", "exit"],
    "UNINITIALISED_REGISTER",
    1,
    /r1 is read/,
  ],
  [
    "the caller's r6 in a called function",
    ["r6 = 1", "call pc+1", "exit", "r0 = r6", "exit"],
    "UNINITIALISED_REGISTER",
    3,
    /r6 is read/,
  ],
  [
    "a called function that returns nothing",
    ["call pc+1", "exit", "exit"],
    "UNINITIALISED_REGISTER",
    2,
    /r0 is read/,
  ],
  [
    "a called function that returns its own stack",
    ["call pc+2", "r0 = 0", "exit", "r0 = r10", "exit"],
    "POINTER_LEAK",
    4,
    /returns an address/,
  ],
  [
    "its own stack's address in the caller's stack",
    ["r1 = r10", "call pc+2", "r0 = 0", "exit", "*(u64 *)(r1 - 8) = r10", "r0 = 0", "exit"],
    "POINTER_LEAK",
    4,
    /outlive/,
  ],
  [
    "reading what a called function was to write",
    ["r1 = r10", "r1 += -8", "call pc+2", "r0 = *(u64 *)(r10 - 8)", "exit", "r0 = 0", "exit"],
    "STACK_UNINITIALISED",
    3,
    /not all bytes/,
  ],
];

const HELPERS: readonly Row[] = [
  [
    "a helper in the HELPERFREE form",
    [`call ${ALLOC + 9}`, "exit"],
    "HELPER_FORM",
    0,
    /smp_mb_full in a HELPERFREE/,
  ],
  [
    "a number that is no helper",
    ["call 12", "exit"],
    "HELPER_UNKNOWN",
    0,
    /helper 0xc, which does not exist/,
    v1("txp"),
  ],
  [
    "one past the last helper",
    [`call ${ALLOC + 11}`, "exit"],
    "HELPER_UNKNOWN",
    0,
    /0x4b8f000b/,
    v1("txp"),
  ],
  [
    "a receive helper in a transmit program",
    [`call ${ALLOC}`, "exit"],
    "HELPER_PROGRAM",
    0,
    /txp calls rx_pkt_alloc, which is for rxc/,
    v1("txp"),
  ],
  [
    "a transmit helper in a receive program",
    [`call ${MD_GET}`, "exit"],
    "HELPER_PROGRAM",
    0,
    /which is for txp, txh/,
    v1("rxc"),
  ],
  [
    "a helper that maps memory",
    ["r2 = 0", "r3 = 0", "r4 = r10", `call ${ALLOC + 5}`, "exit"],
    "HELPER_UNPROVABLE",
    3,
    /whatever address/,
    v1("rxc"),
  ],
  [
    "a context that has moved",
    ["r1 += 8", `call ${ALLOC}`, "exit"],
    "HELPER_ARGUMENT",
    1,
    /r1 of rx_pkt_alloc is context \+ 8/,
    v1("rxc"),
  ],
  [
    "a number in place of the context",
    ["r1 = 0", `call ${ALLOC}`, "exit"],
    "HELPER_ARGUMENT",
    1,
    /r1 of rx_pkt_alloc is 0/,
    v1("rxc"),
  ],
  [
    "an argument that was not set",
    [`call ${MD_SET}`, "exit"],
    "UNINITIALISED_REGISTER",
    0,
    /r2 is read/,
    v1("rxc"),
  ],
  [
    "an output across the frame's end",
    ["r2 = r10", "r2 += -8", `call ${MD_GET}`, "exit"],
    "STACK_BOUNDS",
    2,
    /write \(r2\) of 10 bytes/,
    v1("txp"),
  ],
  [
    "an output across the context's end",
    ["r2 = r1", "r2 += 4087", `call ${MD_GET}`, "exit"],
    "CONTEXT_BOUNDS",
    2,
    /end at 4097/,
    v1("txp"),
  ],
  [
    "a number as output",
    ["r2 = 4096", `call ${MD_GET}`, "exit"],
    "HELPER_ARGUMENT",
    1,
    /r2 of pkt_virtio_net_md_get is 4096/,
    v1("txp"),
  ],
  [
    "an input that was not written",
    ["r2 = r10", "r2 += -16", `call ${MD_SET}`, "exit"],
    "STACK_UNINITIALISED",
    2,
    /read \(r2\)/,
    v1("rxc"),
  ],
  [
    "an output that was written on success only",
    [
      "r2 = r10",
      "r2 += -2",
      "r3 = r10",
      "r3 += -4",
      `call ${CSUM_GET}`,
      "r0 = *(u16 *)(r10 - 2)",
      "r0 = 0",
      "exit",
    ],
    "STACK_UNINITIALISED",
    5,
    /not all bytes/,
    v1("txp"),
  ],
  [
    "an address that the helper wrote over",
    [
      "r6 = r1",
      "*(u64 *)(r10 - 16) = r1",
      "r2 = r10",
      "r2 += -16",
      `call ${MD_GET}`,
      "r2 = *(u64 *)(r10 - 16)",
      "r0 = *(u64 *)(r2 + 0)",
      "exit",
    ],
    "NOT_A_POINTER",
    6,
    /a number/,
    v1("txp"),
  ],
  [
    "r1 after a helper",
    [`call ${ALLOC}`, "r2 = *(u32 *)(r1 + 16)", "exit"],
    "UNINITIALISED_REGISTER",
    1,
    /r1 is read/,
    v1("rxc"),
  ],
  [
    "a string without an end",
    [
      "*(u64 *)(r10 - 8) = 1094795585",
      "*(u32 *)(r10 - 4) = 1094795585",
      "r1 = r10",
      "r1 += -8",
      "r2 = 0",
      `call ${PRINT}`,
      "exit",
    ],
    "HELPER_ARGUMENT",
    5,
    /r1 of print_num/,
    v1("txp"),
  ],
  [
    "a string in the context",
    ["r2 = 0", `call ${PRINT}`, "exit"],
    "HELPER_ARGUMENT",
    1,
    /context \+ 0/,
    v1("txp"),
  ],
  [
    "an address to print",
    ["*(u64 *)(r10 - 8) = 0", "r2 = r1", "r1 = r10", "r1 += -8", `call ${PRINT}`, "exit"],
    "HELPER_ARGUMENT",
    4,
    /r2 of print_num is context/,
    v1("txp"),
  ],
  [
    "a result as an index",
    [`r6 = r1`, `call ${ALLOC}`, "r6 += r0", "r0 = *(u8 *)(r6 + 0)", "exit"],
    "POINTER_ARITHMETIC",
    2,
    /no bound/,
    v1("rxc"),
  ],
];

const RESULTS: readonly Row[] = [
  [
    "txp that returns 1",
    ["r0 = 1", "exit"],
    "RETURN_VALUE",
    1,
    /txp returns 1/,
    { program: "txp" },
  ],
  [
    "txc that returns 2",
    ["r0 = 2", "exit"],
    "RETURN_VALUE",
    1,
    /txc returns 2/,
    { program: "txc" },
  ],
  [
    "rxc that returns what the host wrote",
    ["r0 = *(u32 *)(r1 + 16)", "exit"],
    "RETURN_VALUE",
    1,
    /rxc returns up to 2147483647/,
    { program: "rxc" },
  ],
  [
    "64 bits that are positive in their low half",
    ["r0 = 0xffffffff00000005 ll", "exit"],
    "RETURN_VALUE",
    2,
    /txi returns 5/,
    { program: "txi" },
  ],
];

/** The code of `lines`, with one byte changed. */
function patched(lines: readonly string[], slot: number, byte: number, value: number): Uint8Array {
  const code = assembleText(lines);
  code[8 * slot + byte] = value;
  return code;
}

/** `n` functions that call each other in turn, each with so much stack in use. */
function chain(n: number, stack: number): string[] {
  const inner = [`*(u64 *)(r10 - ${stack}) = 1`, "call pc+1", "exit"];
  return [
    ...Array.from({ length: n - 1 }, () => inner).flat(),
    `*(u64 *)(r10 - ${stack}) = 1`,
    ...end,
  ];
}

const ROWS = [CONTEXT, STACK, REGISTERS, ADDRESSES, CONTROL, FUNCTIONS, HELPERS, RESULTS].flat();

for (const [what, program, rule, index, message, options] of ROWS) {
  test(`refused: ${what}`, () => {
    const code = program instanceof Uint8Array ? program : assembleText(program as string[]);
    const verdict = verify({ name: "test", code }, { contextSize: SIZE, ...options });
    const { refusal } = verdict;
    assert.ok(refusal !== undefined, `accepted: ${summarise(verdict)}`);
    assert.match(refusal.message, message);
    assert.deepEqual([refusal.rule, refusal.index], [rule, index], summarise(verdict));
    assert.ok(refusal.fix.length > 10, "it does not say what would fix it");
    assert.equal(summarise(verdict).split("\n").length, 1);
  });
}

test("the table has a program for every rule", () => {
  assert.ok(ROWS.length >= 60);
  const rules = new Set(ROWS.map((row) => row[2]));
  assert.equal(rules.size, 24, [...rules].join(" "));
});

/** Logs of loops would fill the fixture. */
const LOG_LINES = 30;
const FIXTURE = new URL("../../../../src/ebpf/verifier/testdata/messages.txt", import.meta.url);

test("every message, with path and short logs, is as recorded (BPFHV_RECORD=1 records anew)", () => {
  const texts = ROWS.map(([what, program, , , , options]) => {
    const code = program instanceof Uint8Array ? program : assembleText(program as string[]);
    const verdict = verify({ name: "test", code }, { contextSize: SIZE, log: true, ...options });
    return `# ${what}\n${explain(verdict, verdict.log.length <= LOG_LINES ? 2 : 1)}\n`;
  });
  const text = texts.join("\n");
  if (process.env.BPFHV_RECORD === "1") writeFileSync(FIXTURE, text);
  assert.equal(text, readFileSync(FIXTURE, "utf8"));
});
