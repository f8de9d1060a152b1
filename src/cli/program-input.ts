/**
 * Programs from a file or standard input, in the forms that tools make: objects, hexadecimal, text,
 * raw bytes.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";
import { MAX_INSTRUCTIONS } from "../abi/programs.ts";
import { looksLikeElf, readElf, readForeignElf } from "../ebpf/elf-reader.ts";
import { EbpfError } from "../ebpf/errors.ts";
import { SLOT } from "../ebpf/instruction.ts";
import type { Program } from "../ebpf/program.ts";
import { assembleText } from "../ebpf/text.ts";
import { failure, Usage } from "../errors.ts";

export const FORMATS = ["elf", "hex", "text", "raw"] as const;
export type ProgramFormat = (typeof FORMATS)[number];

export interface InputOptions {
  /** Found from the content if it is not given. */
  readonly format?: ProgramFormat;
  /** Of an object, this section or function alone. */
  readonly section?: string;
  /**
   * To look at: what needs a loader is named, and what is wrong with one of an object's programs is
   * reported here.
   */
  readonly problem?: (message: string) => void;
}

const MAX_INPUT = 16 * 1024 * 1024;
const STDIN = 0;
const CHUNK = 1 << 16;

/**
 * Reads the programs of a file; "-" is standard input. What is not an object is one program, named
 * after the file.
 * @throws CommandError
 */
export function readPrograms(path: string, options: InputOptions = {}): readonly Program[] {
  const bytes = readInput(path);
  const format = options.format ?? formatOf(bytes);
  if (options.section !== undefined && format !== "elf") {
    throw new Usage(`--section is for ELF objects, and ${path} is ${format}`);
  }
  try {
    if (format === "elf") return readObject(bytes, path, options);
    const name = path === "-" ? "stdin" : basename(path).replace(/\.\w+$/, "");
    return [{ name, code: codeOf(bytes, format) }];
  } catch (error) {
    if (error instanceof EbpfError) throw failure(`${path}: ${error.message}`);
    throw error;
  }
}

function readObject(bytes: Uint8Array, path: string, options: InputOptions): Program[] {
  const { section, problem } = options;
  if (problem === undefined) return readElf(bytes, section);
  return readForeignElf(bytes, section, ({ message }) => problem(`${path}: ${message}`));
}

/** Objects by their magic; text that is hexadecimal, or else assembly; bytes that are not text. */
export function formatOf(bytes: Uint8Array): ProgramFormat {
  if (looksLikeElf(bytes)) return "elf";
  // Code has bytes of zero: unused fields must be.
  if (bytes.some((b) => b === 0 || b > 126)) return "raw";
  return hexDigits(bytes) === null ? "text" : "hex";
}

/** Bytes written in hexadecimal; white space and one leading 0x are passed over. @throws Usage */
export function bytesFromHex(text: string): Uint8Array {
  if (hexDigits(Buffer.from(text)) === null) {
    throw new Usage("bytes are written as pairs of hexadecimal digits");
  }
  return Uint8Array.from(Buffer.from(text.replace(/\s+/g, "").replace(/^0x/, ""), "hex"));
}

const SPACE = /\s/;
const HEX = /[0-9a-fA-F]/;
/** Of each ASCII character: 1 for a digit, 0 for white space, -1 for what is neither. */
const CLASSES = Int8Array.from({ length: 128 }, (_, code) => {
  const character = String.fromCharCode(code);
  return HEX.test(character) ? 1 : SPACE.test(character) ? 0 : -1;
});

/**
 * How many digits there are, white space and one leading 0x aside; null: these are not pairs of
 * them.
 */
function hexDigits(bytes: Uint8Array): number | null {
  const first = bytes.findIndex((byte) => CLASSES[byte] !== 0);
  const prefixed = bytes[first] === 0x30 && bytes[first + 1] === 0x78;
  let digits = 0;
  for (let at = prefixed ? first + 2 : 0; at < bytes.length; at++) {
    const kind = CLASSES[bytes[at]!] ?? -1;
    if (kind < 0) return null;
    digits += kind;
  }
  return digits > 0 && digits % 2 === 0 ? digits : null;
}

function codeOf(bytes: Uint8Array, format: ProgramFormat): Uint8Array {
  if (format === "text") return assembleText(Buffer.from(bytes).toString("utf8"));
  checkLength(format === "raw" ? bytes.length : (hexDigits(bytes) ?? 0) / 2);
  return format === "raw" ? bytes : bytesFromHex(Buffer.from(bytes).toString("utf8"));
}

/**
 * @throws EbpfError for code that no program window holds: decoded, it takes a hundred times its
 * size
 */
function checkLength(length: number): void {
  if (length <= MAX_INSTRUCTIONS * SLOT) return;
  throw new EbpfError(
    "ENCODING",
    `${Math.floor(length / SLOT)} instructions: programs have at most ${MAX_INSTRUCTIONS}`,
  );
}

function readInput(path: string): Uint8Array {
  try {
    const bytes = path === "-" ? readAll(STDIN, path) : readFile(path);
    if (bytes.length === 0) throw failure(`${path}: there is nothing in it`);
    return bytes;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw failure(`cannot read ${path}: ${code}`);
  }
}

function readFile(path: string): Uint8Array {
  const fd = openSync(path, "r");
  try {
    return readAll(fd, path);
  } finally {
    closeSync(fd);
  }
}

/** All that comes, up to the limit: a pipe or a device may never end. */
function readAll(fd: number, path: string): Uint8Array {
  const chunks: Buffer[] = [];
  for (let total = 0; total <= MAX_INPUT; ) {
    const chunk = Buffer.allocUnsafe(CHUNK);
    const length = readSync(fd, chunk);
    if (length === 0) return Buffer.concat(chunks);
    chunks.push(chunk.subarray(0, length));
    total += length;
  }
  throw failure(`${path}: programs have at most ${MAX_INPUT} bytes`);
}
