/** Specs in a file: TOML with one table `[nic]`, or several `[[nic]]` for the NICs of a process. */
import { readFile } from "node:fs/promises";
import { failure, Usage } from "../errors.ts";
import { shown } from "./field.ts";
import { printable } from "./printable.ts";
import { completeSpec, readSpec, SpecError } from "./read-spec.ts";
import type { NicSpec } from "./spec.ts";

/** A file of eight NICs has 4 KiB. */
const MAX_BYTES = 256 * 1024;
/** PCI has no more slots on a bus. */
const MAX_NICS = 32;

/**
 * @returns the fields that the file gives, of each of its NICs
 * @throws Usage that names the file, CommandError if it cannot be read
 */
export async function readConfig(file: string): Promise<Partial<NicSpec>[]> {
  const text = await textOf(file);
  const { parse } = await import("smol-toml");
  try {
    return specsOf(parse(text));
  } catch (error) {
    throw new Usage(`${file}: ${printable((error as Error).message.replace(/\s+/g, " ").trim())}`);
  }
}

async function textOf(file: string): Promise<string> {
  try {
    const bytes = await readFile(file);
    if (bytes.length > MAX_BYTES) throw new Usage(`${file}: longer than ${MAX_BYTES} bytes`);
    return bytes.toString();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw code === undefined ? error : failure(`cannot read ${file}: ${message}`);
  }
}

function specsOf(document: Readonly<Record<string, unknown>>): Partial<NicSpec>[] {
  const { nic, ...others } = document;
  const [other] = Object.keys(others);
  if (other !== undefined)
    throw new Error(`${other}: unknown: write [nic], or [[nic]] for several`);
  if (nic === undefined) throw new Error("no NIC: write [nic] and its fields");
  const tables = Array.isArray(nic) ? nic : [nic];
  if (tables.length > MAX_NICS) throw new Error(`${tables.length} NICs: use at most ${MAX_NICS}`);
  return tables.map((table, n) => specOf(table, tables.length > 1 ? `nic ${n + 1}: ` : ""));
}

function specOf(table: unknown, which: string): Partial<NicSpec> {
  try {
    return readSpec(table);
  } catch (error) {
    if (!(error instanceof SpecError)) throw error;
    throw new Error(`${which}${error.message}`);
  }
}

/** The NICs of one process. @throws Usage if two are the same */
export function completeSpecs(given: readonly Partial<NicSpec>[]): NicSpec[] {
  const specs = given.map((each) => completeSpec(each));
  for (const field of ["name", "socket", "mac"] as const) {
    const seen = new Set<string>();
    for (const { [field]: value } of specs) {
      if (seen.has(value))
        throw new Usage(`${field} ${shown(value)}: two NICs have it: change one`);
      seen.add(value);
    }
  }
  return specs;
}
