/**
 * The program blob: a whole set, which the host writes into guest memory (ability BLOB) instead of
 * answering thousands of trapped reads of BAR 3.
 *
 *     header (48 bytes): magic u32, total length u32, generation u32, program count u32,
 *                        SHA-256 of the rest
 *     each program:      id u32, instruction count u32, name 16 bytes (NUL padded), instructions
 */
import { createHash } from "node:crypto";
import { struct, u32 } from "./layout.ts";
import { PROGRAM_IDS, PROGRAM_NAMES, type ProgramId, type ProgramSet } from "./programs.ts";
import { BLOB_MAGIC } from "./registers.ts";

export const BLOB_HEADER = struct("bpfhv_blob", 48, {
  magic: u32(0),
  length: u32(4),
  generation: u32(8),
  programs: u32(12),
});
export const BLOB_HASH_OFFSET = 16;

export const BLOB_PROGRAM = struct("bpfhv_blob_program", 24, {
  id: u32(0),
  instructions: u32(4),
});
export const BLOB_NAME_OFFSET = 8;

/** @returns the set as a blob, which is then copied to the guest */
export function buildBlob(set: ProgramSet, generation: number): Uint8Array {
  const names = PROGRAM_NAMES.filter((name) => set.code.has(PROGRAM_IDS[name]));
  let length = BLOB_HEADER.size;
  for (const name of names) length += BLOB_PROGRAM.size + codeOf(set, name).length;

  const blob = new Uint8Array(length);
  const view = new DataView(blob.buffer);
  let at = BLOB_HEADER.size;
  for (const name of names) {
    const code = codeOf(set, name);
    view.setUint32(at + BLOB_PROGRAM.id.offset, PROGRAM_IDS[name], true);
    view.setUint32(at + BLOB_PROGRAM.instructions.offset, code.length / 8, true);
    blob.set(Buffer.from(name), at + BLOB_NAME_OFFSET);
    blob.set(code, at + BLOB_PROGRAM.size);
    at += BLOB_PROGRAM.size + code.length;
  }
  view.setUint32(BLOB_HEADER.magic.offset, BLOB_MAGIC, true);
  view.setUint32(BLOB_HEADER.length.offset, length, true);
  view.setUint32(BLOB_HEADER.generation.offset, generation, true);
  view.setUint32(BLOB_HEADER.programs.offset, names.length, true);
  const hash = createHash("sha256").update(blob.subarray(BLOB_HEADER.size)).digest();
  blob.set(hash, BLOB_HASH_OFFSET);
  return blob;
}

/**
 * @param bytes which nobody else changes meanwhile
 * @returns a copy of each program's code; undefined if length, hash or a program's bounds are wrong
 */
export function parseBlob(bytes: Uint8Array): Map<ProgramId, Uint8Array> | undefined {
  if (bytes.length < BLOB_HEADER.size) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const word = (at: number): number => view.getUint32(at, true);
  if (word(BLOB_HEADER.magic.offset) !== BLOB_MAGIC) return undefined;
  if (word(BLOB_HEADER.length.offset) !== bytes.length) return undefined;
  const hash = createHash("sha256").update(bytes.subarray(BLOB_HEADER.size)).digest();
  if (hash.compare(bytes, BLOB_HASH_OFFSET, BLOB_HEADER.size) !== 0) return undefined;
  const code = new Map<ProgramId, Uint8Array>();
  let at = BLOB_HEADER.size;
  for (let n = word(BLOB_HEADER.programs.offset); n > 0; n--) {
    if (at + BLOB_PROGRAM.size > bytes.length) return undefined;
    const id = word(at + BLOB_PROGRAM.id.offset) as ProgramId;
    const length = word(at + BLOB_PROGRAM.instructions.offset) * 8;
    at += BLOB_PROGRAM.size;
    if (at + length > bytes.length) return undefined;
    // Not slice: a Buffer's shares memory.
    code.set(id, new Uint8Array(bytes.subarray(at, at + length)));
    at += length;
  }
  return at === bytes.length ? code : undefined;
}

function codeOf(set: ProgramSet, name: keyof typeof PROGRAM_IDS): Uint8Array {
  return set.code.get(PROGRAM_IDS[name]) as Uint8Array;
}
