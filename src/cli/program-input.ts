/** Programs from a file or standard input, in the forms that tools make: objects, hexadecimal, text, raw bytes. */
import { readFileSync, statSync } from "node:fs";
import { basename } from "node:path";
import { looksLikeElf, readElf } from "../ebpf/elf-reader.ts";
import { EbpfError } from "../ebpf/errors.ts";
import type { Program } from "../ebpf/program.ts";
import { assembleText } from "../ebpf/text.ts";
import { failure, Usage } from "./errors.ts";

export const FORMATS = ["elf", "hex", "text", "raw"] as const;
export type ProgramFormat = (typeof FORMATS)[number];

export interface InputOptions {
  /** Told by the content where it is not given. */
  readonly format?: ProgramFormat;
  /** Of an object, this section or function alone. */
  readonly section?: string;
}

const MAX_INPUT = 16 * 1024 * 1024;
const STDIN = 0;

/**
 * Reads the programs of a file; "-" is standard input. What is not an object is one program, named after the file.
 * @throws CommandError
 */
export function readPrograms(path: string, options: InputOptions = {}): readonly Program[] {
  const bytes = readInput(path);
  const format = options.format ?? formatOf(bytes);
  if (options.section !== undefined && format !== "elf") {
    throw new Usage(`--section is for ELF objects, and ${path} is ${format}`);
  }
  try {
    if (format === "elf") return readElf(bytes, options.section);
    const name = path === "-" ? "stdin" : basename(path).replace(/\.\w+$/, "");
    return [{ name, code: codeOf(bytes, format) }];
  } catch (error) {
    if (error instanceof EbpfError) throw failure(`${path}: ${error.message}`);
    throw error;
  }
}

/** Objects by their magic; text that is hexadecimal, or else assembly; bytes that are not text. */
export function formatOf(bytes: Uint8Array): ProgramFormat {
  if (looksLikeElf(bytes)) return "elf";
  // Code has bytes of zero: unused fields must be.
  if (bytes.some((b) => b === 0 || b > 126)) return "raw";
  return isHex(Buffer.from(bytes).toString("latin1")) ? "hex" : "text";
}

/** Bytes written in hexadecimal; white space and one leading 0x are passed over. @throws Usage */
export function bytesFromHex(text: string): Uint8Array {
  if (!isHex(text)) throw new Usage("bytes are written as pairs of hexadecimal digits");
  return Uint8Array.from(Buffer.from(digitsOf(text), "hex"));
}

const digitsOf = (text: string): string => text.replace(/\s+/g, "").replace(/^0x/, "");
const isHex = (text: string): boolean => /^(?:[0-9a-fA-F]{2})+$/.test(digitsOf(text));

function codeOf(bytes: Uint8Array, format: ProgramFormat): Uint8Array {
  if (format === "raw") return bytes;
  const text = Buffer.from(bytes).toString("utf8");
  return format === "hex" ? bytesFromHex(text) : assembleText(text);
}

function readInput(path: string): Uint8Array {
  try {
    if (path !== "-" && statSync(path).size > MAX_INPUT) {
      throw failure(`${path}: programs have at most ${MAX_INPUT} bytes`);
    }
    const bytes = readFileSync(path === "-" ? STDIN : path);
    if (bytes.length === 0) throw failure(`${path}: there is nothing in it`);
    return bytes;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw failure(`cannot read ${path}: ${code}`);
  }
}
