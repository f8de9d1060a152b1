/**
 * Valid objects, texts and code from several compilers, and
 * mutations that keep most of their meaning.
 */
import { readdirSync, readFileSync } from "node:fs";
import { programSet } from "../../../src/devices/program-set.ts";
import { FORMATS as RING_FORMATS } from "../../../src/devices/registry.ts";
import { readElf } from "../../../src/ebpf/elf-reader.ts";
import { writeElf } from "../../../src/ebpf/elf-writer.ts";
import { EbpfError } from "../../../src/ebpf/errors.ts";
import { ENCODINGS } from "../../../src/ebpf/opcode.ts";
import { disassemble } from "../../../src/ebpf/text.ts";
import { generate } from "../../support/ebpf-fuzz/generate.ts";
import { assembleFuzz } from "../../support/ebpf-fuzz/program.ts";
import { Random } from "../../support/ebpf-fuzz/random.ts";

export const FORMATS = ["elf", "text", "raw"] as const;
export type Format = (typeof FORMATS)[number];

/** The build copies no objects: the path leads from dist/test/fuzz/targets to src. */
const TESTDATA = new URL("../../../../src/ebpf/testdata/", import.meta.url);
const SLOT = 8;
const RANDOM_BASES = 40;

interface Bases {
  readonly elf: readonly Uint8Array[];
  readonly text: readonly string[];
  readonly raw: readonly Uint8Array[];
}

let made: Bases | undefined;

function bases(): Bases {
  made ??= makeBases();
  return made;
}

function makeBases(): Bases {
  const clang = readdirSync(TESTDATA)
    .filter((name) => name.endsWith(".o"))
    .map((name) => Uint8Array.from(readFileSync(new URL(name, TESTDATA))));
  const sets = RING_FORMATS.flatMap((device) =>
    (["helperfree", "v1"] as const).map((form) =>
      programSet(device, { rxBufs: 16, txBufs: 16 }, form),
    ),
  );
  const ours = sets.flatMap(({ code }) => [...code.values()]);
  const random = Array.from({ length: RANDOM_BASES }, (_, seed) =>
    assembleFuzz(generate(new Random(seed), { provable: seed % 2 === 0 })),
  );
  const written = sets.map(({ code }) =>
    writeElf([...code].map(([id, bytes]) => ({ name: `program${id}`, code: bytes }))),
  );
  const raw = [...clang.flatMap(codeOf), ...ours, ...random];
  return {
    elf: [...clang, ...written],
    raw,
    text: raw.map((code) => disassemble(code).join("\n")),
  };
}

function codeOf(object: Uint8Array): Uint8Array[] {
  try {
    return readElf(object).map(({ code }) => code);
  } catch (error) {
    if (error instanceof EbpfError) return [];
    throw error;
  }
}

export function damagedInput(format: Format, random: Random): Uint8Array {
  const input = random.pick<Uint8Array | string>(bases()[format]);
  if (typeof input === "string") return Buffer.from(damagedText(input, random));
  const bytes = input.slice();
  const times = 1 + random.below(random.once(4) ? 12 : 3);
  let result: Uint8Array = bytes;
  for (let n = 0; n < times; n++) {
    result = format === "raw" ? damagedCode(result, random) : damagedBytes(result, random);
  }
  return result;
}

/** Changes a byte, a bit or a word, truncates, or copies a range. */
function damagedBytes(bytes: Uint8Array, random: Random): Uint8Array {
  if (bytes.length < 16) return bytes;
  const at = random.below(bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const word = random.below(bytes.length - 8);
  switch (random.below(7)) {
    case 0:
      bytes[at] = random.below(256);
      break;
    case 1:
      bytes[at]! ^= 1 << random.below(8);
      break;
    case 2:
      view.setUint32(word, random.immediate() >>> 0, true);
      break;
    case 3:
      view.setBigUint64(word, random.wide(), true);
      break;
    case 4:
      return random.once(4) ? bytes.slice(0, at) : bytes;
    case 5:
      bytes.copyWithin(at, random.below(bytes.length), random.below(bytes.length));
      break;
    default:
      // Headers determine the meaning of the rest.
      bytes[random.below(Math.min(bytes.length, 64))] = random.below(256);
  }
  return bytes;
}

/** Changes a field of an instruction, or moves, repeats or removes whole ones. */
function damagedCode(code: Uint8Array, random: Random): Uint8Array {
  const slots = Math.floor(code.length / SLOT);
  if (slots === 0) return code;
  const at = SLOT * random.below(slots);
  const view = new DataView(code.buffer, code.byteOffset, code.length);
  switch (random.below(8)) {
    case 0:
      code[at] = random.pick(ENCODINGS).opcode;
      break;
    case 1:
      code[at + 1] = random.below(11) | (random.below(11) << 4);
      break;
    case 2:
      view.setInt16(at + 2, random.once(2) ? random.below(64) - 32 : random.next() | 0, true);
      break;
    case 3:
      view.setInt32(at + 4, random.immediate(), true);
      break;
    case 4:
      code.copyWithin(at, SLOT * random.below(slots), SLOT * random.below(slots + 1));
      break;
    case 5:
      return Uint8Array.from([...code.subarray(0, at), ...code.subarray(at + SLOT)]);
    case 6:
      return Uint8Array.from([...code.subarray(0, at + SLOT), ...code.subarray(at)]);
    default:
      return damagedBytes(code, random);
  }
  return code;
}

const WORDS = [
  "r0",
  "r10",
  "w3",
  "+",
  "-",
  "0x7fffffff",
  "-1",
  "goto",
  "exit",
  "call",
  "ll",
  "(",
  ")",
];

/** Moves lines, replaces words, changes characters. */
function damagedText(text: string, random: Random): string {
  const lines = text.split("\n");
  const times = 1 + random.below(4);
  for (let n = 0; n < times; n++) {
    const at = random.below(lines.length);
    const line = lines[at] ?? "";
    const words = line.split(" ");
    const word = random.below(words.length);
    switch (random.below(6)) {
      case 0:
        lines.splice(at, 1);
        break;
      case 1:
        lines.splice(at, 0, random.pick(lines) ?? "");
        break;
      case 2:
        words[word] = random.once(2) ? random.pick(WORDS) : `${random.immediate()}`;
        lines[at] = words.join(" ");
        break;
      case 3:
        lines[at] = line.slice(0, random.below(line.length + 1));
        break;
      case 4:
        lines[at] = line.replace(
          /\d+/,
          () => `${random.once(2) ? random.wide() : random.below(12)}`,
        );
        break;
      default:
        lines[at] =
          `${line.slice(0, word)}${String.fromCharCode(random.below(300))}${line.slice(word)}`;
    }
    if (lines.length === 0) break;
  }
  return lines.join("\n");
}
