/** The signs of clang's and the kernel's dialect, for writing and for reading it. */
import type { AluOp, JumpOp } from "./opcode.ts";

export const ALU_SIGNS: Readonly<Record<AluOp, string>> = {
  ...{ add: "+=", sub: "-=", mul: "*=", div: "/=", sdiv: "s/=", or: "|=", and: "&=" },
  ...{ lsh: "<<=", rsh: ">>=", mod: "%=", smod: "s%=", xor: "^=", mov: "=", arsh: "s>>=" },
};
export const JUMP_SIGNS: Readonly<Record<JumpOp, string>> = {
  ...{ eq: "==", gt: ">", ge: ">=", set: "&", ne: "!=", sgt: "s>", sge: "s>=" },
  ...{ lt: "<", le: "<=", slt: "s<", sle: "s<=" },
};
/** Atomics that return nothing. */
export const LOCK_SIGNS = { add: "+=", or: "|=", and: "&=", xor: "^=" } as const;
