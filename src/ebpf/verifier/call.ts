/** Checks calls of the driver's helpers: caller, arguments and result. */
import { HELPERS, type HelperName } from "../../abi/programs.ts";
import type { Instruction } from "../instruction.ts";
import {
  type Access,
  checkAccess,
  checkReadable,
  knownByte,
  uninitialised,
  writeUnknown,
} from "./access.ts";
import { type Argument, HELPER_SIGNATURES, type Signature } from "./helpers.ts";
import { Refused } from "./refusal.ts";
import { lowBetween } from "./scalar.ts";
import type { State } from "./state.ts";
import type { Surroundings } from "./step.ts";
import { describe, type Pointer, type Value } from "./value.ts";

const NAMES = new Map(
  Object.entries(HELPERS).map(([name, n]) => [n as number, name as HelperName]),
);

/** @throws Refused */
export function callHelper(around: Surroundings, state: State, i: Instruction): void {
  const name = NAMES.get(i.imm >>> 0);
  checkAllowed(around, i, name);
  const signature = HELPER_SIGNATURES[name as HelperName];
  const outputs = signature.args.map((argument, n) =>
    checkArgument(around, state, i, name as HelperName, argument, n + 1),
  );
  const [first, ...others] = signature.results;
  for (const result of others) {
    const other = state.copy();
    finish(other, signature, outputs, result);
    around.fork(other, i.index + 1, i.index, true);
  }
  finish(state, signature, outputs, first!);
}

type Output = { readonly pointer: Pointer; readonly access: Access } | undefined;

/** Continues after the call, for one range of results. */
function finish(
  state: State,
  signature: Signature,
  outputs: readonly Output[],
  result: readonly [number, number],
): void {
  signature.args.forEach((argument, n) => {
    const output = outputs[n];
    if (argument.kind !== "out" || output === undefined) return;
    const written = argument.writesOn === undefined || argument.writesOn === result[0];
    if (written) writeUnknown(state, output.pointer, output.access);
  });
  state.forgetArguments();
  state.registers[0] = lowBetween(result[0], result[1]);
}

function checkAllowed(around: Surroundings, i: Instruction, name: HelperName | undefined): void {
  const hex = `0x${(i.imm >>> 0).toString(16)}`;
  if (around.form === "helperfree") {
    throw new Refused(
      "HELPER_FORM",
      i.index,
      `calls helper ${name ?? hex} in a HELPERFREE program`,
      "use a fetching atomic for a barrier and the context's metadata for offloads, or the form v1",
    );
  }
  if (name === undefined) {
    throw new Refused(
      "HELPER_UNKNOWN",
      i.index,
      `calls helper ${hex}, which does not exist`,
      `helpers are 0x${HELPERS.rx_pkt_alloc.toString(16)} to 0x${HELPERS.print_num.toString(16)}`,
    );
  }
  const { programs, unprovable } = HELPER_SIGNATURES[name];
  const { program } = around;
  if (program !== undefined && programs !== "any" && !programs.includes(program)) {
    throw new Refused(
      "HELPER_PROGRAM",
      i.index,
      `${program} calls ${name}, which is for ${programs.join(", ")}`,
      `call it in ${programs.join(" or ")}`,
    );
  }
  if (unprovable !== undefined) {
    throw new Refused(
      "HELPER_UNPROVABLE",
      i.index,
      `calls ${name}, which is unprovable: ${unprovable}`,
      "let the driver map buffers, or run the program with --allow-unverified",
    );
  }
}

function checkArgument(
  around: Surroundings,
  state: State,
  i: Instruction,
  name: HelperName,
  argument: Argument,
  register: number,
): Output {
  const value = state.registers[register];
  if (value === undefined) throw uninitialised(register, i.index);
  const wrong = (wanted: string) =>
    new Refused(
      "HELPER_ARGUMENT",
      i.index,
      `r${register} of ${name} is ${describe(value)}`,
      `pass ${wanted}`,
    );
  switch (argument.kind) {
    case "number":
      if (value.isPointer) throw wrong("a number");
      return undefined;
    case "context":
      if (!isWholeContext(value)) throw wrong("the context, as r1 was at the start");
      return undefined;
    case "string":
      if (!isString(state, value)) {
        throw wrong("a string of known bytes on the stack that ends with a NUL");
      }
      return undefined;
    default: {
      if (!value.isPointer) throw wrong(`the address of ${argument.size} bytes`);
      return memoryArgument(around, state, i, name, argument, register);
    }
  }
}

function memoryArgument(
  around: Surroundings,
  state: State,
  i: Instruction,
  name: HelperName,
  { kind, size }: Extract<Argument, { size: number }>,
  register: number,
): Output {
  const what = `${name}'s ${kind === "in" ? "read" : "write"} (r${register})`;
  const value = state.registers[register];
  const access = { index: i.index, what, register, value, offset: 0, size };
  const pointer = checkAccess(access, around.contextSize);
  if (pointer.region === "stack") {
    around.useStack(state.frames[pointer.frame]!.fn, -pointer.min);
    if (kind === "in") checkReadable(state, pointer, access);
  }
  return { pointer, access };
}

function isWholeContext(value: Value): boolean {
  return value.isPointer && value.region === "context" && value.min === 0 && value.max === 0;
}

/** Checks known bytes that end with 0. Only on the stack: the host can change the context. */
function isString(state: State, value: Value): boolean {
  if (!value.isPointer || value.region !== "stack" || !value.isConstant) return false;
  for (let at = value.min; at < 0; at++) {
    const byte = knownByte(state, value.frame, at);
    if (byte === undefined) return false;
    if (byte === 0) return true;
  }
  return false;
}
