/**
 * Case files of the eBPF conformance suite: sections begin with `-- name`, comments with `#`.
 *
 *     -- asm      the program in the suite's dialect
 *     -- raw      the program as 64-bit words (0x…) or as bytes (two digits each); overrides asm
 *     -- mem      initial memory as hexadecimal bytes: R1 is its address, R2 its length
 *     -- result   R0 at exit
 *     -- map      maps that the platform must create: not supported, so the case is skipped
 *     -- error    the program must be refused or fail; the text is not compared
 */
import { SLOT } from "../instruction.ts";
import { assembleSuiteText } from "./dialect.ts";

/** A file that is not a valid case. */
export class CaseError extends Error {
  override readonly name = "CaseError";
}

/** A case that needs an optional feature of RFC 9669 which this platform lacks. */
export class CaseNeedsError extends CaseError {}

export interface ConformanceCase {
  /** Lines of `asm`, or none if `raw` is given. The dialect strips comments. */
  readonly asm: readonly string[];
  readonly raw?: Uint8Array;
  /** Empty if R1 and R2 are 0. */
  readonly memory: Uint8Array;
  /** R0 as 64 unsigned bits, or a failure. */
  readonly expected: bigint | "error";
}

const SECTIONS = [
  "asm",
  "raw",
  "mem",
  "map",
  "result",
  "error",
  "c",
  "no register offset",
] as const;
type SectionName = (typeof SECTIONS)[number];

/** @throws CaseError if the file is invalid, CaseNeedsError if it cannot be run here */
export function parseCase(text: string): ConformanceCase {
  const sections = split(text);
  if (sections.has("map")) {
    throw new CaseNeedsError(
      "needs maps (-- map), which RFC 9669 leaves to platforms and this one lacks",
    );
  }
  const asm = sections.get("asm") ?? [];
  const raw = words(sections.get("raw") ?? []);
  if (raw.length === 0 && asm.every((line) => stripped(line) === "")) {
    throw new CaseError("there is no program: give -- asm or -- raw");
  }
  return {
    asm,
    ...(raw.length === 0 ? {} : { raw: rawCode(raw) }),
    memory: hexBytes(words(sections.get("mem") ?? []).join(" ")),
    expected: expectation(sections),
  };
}

/** Returns the program's code. @throws TextError if `asm` is invalid */
export function caseCode({ raw, asm }: ConformanceCase): Uint8Array {
  return raw ?? assembleSuiteText(asm);
}

/** Parses hexadecimal digits to bytes and ignores white space between bytes. @throws CaseError */
function hexBytes(text: string): Uint8Array {
  const digits = text.replace(/\s+/g, "");
  if (!/^(?:[0-9a-fA-F]{2})*$/.test(digits)) {
    throw new CaseError("bytes are written as pairs of hexadecimal digits");
  }
  return Uint8Array.from(Buffer.from(digits, "hex"));
}

function split(text: string): Map<SectionName, string[]> {
  const sections = new Map<SectionName, string[]>();
  let current: string[] = [];
  for (const line of text.split(/\r?\n/)) {
    const name = /^--\s*(.*?)\s*$/.exec(line)?.[1];
    if (name === undefined) {
      current.push(line);
      continue;
    }
    if (!SECTIONS.includes(name as SectionName)) throw new CaseError(`unknown section "${name}"`);
    current = [];
    sections.set(name as SectionName, current);
  }
  return sections;
}

const stripped = (line: string): string => line.replace(/#.*$/, "").trim();

function words(lines: readonly string[]): string[] {
  return lines.flatMap((line) => stripped(line).split(/\s+/)).filter((word) => word !== "");
}

function rawCode(list: readonly string[]): Uint8Array {
  if (list.every((word) => /^[0-9a-fA-F]{2}$/.test(word))) return hexBytes(list.join(""));
  const code = new Uint8Array(list.length * SLOT);
  const view = new DataView(code.buffer);
  for (const [i, word] of list.entries()) {
    if (!/^(?:0x[0-9a-fA-F]{1,16}|[0-9a-fA-F]{16})$/.test(word)) {
      throw new CaseError(`"${word}" is neither a 64-bit word (0x…) nor a byte`);
    }
    view.setBigUint64(i * SLOT, BigInt(word.startsWith("0x") ? word : `0x${word}`), true);
  }
  return code;
}

function expectation(sections: ReadonlyMap<SectionName, readonly string[]>): bigint | "error" {
  if (sections.has("error")) return "error";
  const result = words(sections.get("result") ?? [])[0];
  if (result === undefined) throw new CaseError("there is neither -- result nor -- error");
  if (!/^(?:0x[0-9a-fA-F]{1,16}|-?\d{1,20})$/.test(result)) {
    throw new CaseError(`the result "${result}" is not a number`);
  }
  return BigInt.asUintN(64, BigInt(result));
}
