/**
 * Contexts: maps the guest memory that a driver registers for a queue, and checks later whether the
 * guest's memory map still has it.
 *
 * The context gets a mapping of its own, a window: pieces that are scattered in guest memory are
 * contiguous there, and it stays mapped until it is released, whatever the memory map becomes.
 */
import { CONTEXT_PAGE } from "../abi/index.ts";
import {
  addRuns,
  type ContextWords,
  type FileRun,
  FlatWords,
  fileRuns,
  type GuestMemory,
  PagedWords,
  type RunPlace,
  readGuest,
  sameRuns,
  whyRefused,
} from "../memory/index.ts";
import { OsError } from "../os/errors.ts";
import { PAGE } from "../os/memory.ts";
import { giveWindow, takeWindow, type Window } from "../os/window.ts";

/** How a context was registered; plain data. Pages are guest addresses. */
export interface ContextRecord {
  readonly kind: "contiguous" | "pages";
  /** Guest address of the context, or of the page list. */
  readonly address: number;
  readonly pages: readonly number[];
  /** Bytes. */
  readonly size: number;
}

/** A registered context, mapped. */
export interface MappedContext {
  readonly record: ContextRecord;
  /** Must not be accessed after `releaseContext`. */
  readonly words: ContextWords;
  /** File ranges that it was mapped from. */
  readonly runs: readonly FileRun[];
  readonly windows: readonly Window[];
}

/** A context that the guest's memory map lacks at present, and that this process never mapped. */
export interface AbsentContext {
  readonly record: ContextRecord;
  readonly words: null;
  /** File ranges that it was mapped from. */
  readonly runs: readonly RunPlace[];
}

/** @returns the context, or a predicate for an error message: "the context … cannot be mapped" */
export function mapContiguous(
  memory: GuestMemory,
  address: number,
  size: number,
): MappedContext | string {
  return mapRecord({ kind: "contiguous", address, pages: [], size }, memory);
}

/**
 * Maps a context given as a list of guest page addresses (u64, little endian) at `list`.
 * @returns the context, or a predicate for an error message
 */
export function mapPageList(
  memory: GuestMemory,
  list: number,
  size: number,
): MappedContext | string {
  const count = Math.ceil(size / CONTEXT_PAGE);
  // Copied once: the guest may change the list at any time.
  const words = new Uint32Array(2 * count);
  if (!readGuest(memory, list, new Uint8Array(words.buffer))) {
    return `has no page list: ${whyRefused(memory, list, 8 * count, false)}`;
  }
  const pages = Array.from({ length: count }, (_, i) => words[2 * i + 1] * 2 ** 32 + words[2 * i]);
  return mapRecord({ kind: "pages", address: list, pages, size }, memory);
}

/** Returns the context's windows to the pool. */
export function releaseContext(context: MappedContext | AbsentContext): void {
  if (context.words === null) return;
  for (const window of context.windows) giveWindow(window);
}

/** @returns true if every byte of the context is still the memory that was mapped */
export function stillThere(memory: GuestMemory, context: MappedContext | AbsentContext): boolean {
  const runs = runsOf(context.record, memory);
  return runs !== null && sameRuns(runs, context.runs);
}

/** @returns null if not all of it is writable memory */
function runsOf({ kind, address, pages, size }: ContextRecord, memory: GuestMemory) {
  if (kind === "contiguous") return fileRuns(memory, address, size);
  const runs: FileRun[] = [];
  for (const page of pages) {
    if (page % CONTEXT_PAGE !== 0 || !addRuns(runs, memory, page, CONTEXT_PAGE)) return null;
  }
  return runs;
}

/** @returns the context, or a predicate for an error message */
export function mapRecord(record: ContextRecord, memory: GuestMemory): MappedContext | string {
  const runs = runsOf(record, memory);
  if (runs === null) return whyNot(record, memory);
  const windows: Window[] = [];
  try {
    const words = mapRuns(runs, record.size, windows);
    if (words !== null) return { record, words, runs, windows };
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    for (const window of windows) giveWindow(window);
    return `cannot be mapped: ${error.message}`;
  }
  for (const window of windows) giveWindow(window);
  return "is not aligned, or its pieces do not begin and end on pages of 4 KiB";
}

function whyNot({ kind, address, pages, size }: ContextRecord, memory: GuestMemory): string {
  if (kind === "contiguous")
    return `is not mapped, writable guest memory: ${whyRefused(memory, address, size, true)}`;
  const odd = pages.find((page) => page % CONTEXT_PAGE !== 0);
  if (odd !== undefined) return `has a page at 0x${odd.toString(16)}, which is not aligned`;
  const bad = pages.find((page) => runsOf(pageRecord(page), memory) === null)!;
  return `is not mapped, writable guest memory: ${whyRefused(memory, bad, CONTEXT_PAGE, true)}`;
}

function pageRecord(address: number): ContextRecord {
  return { kind: "contiguous", address, pages: [], size: CONTEXT_PAGE };
}

/** Maps the runs; adds the windows it took to `windows`. @returns null if alignment forbids it */
function mapRuns(runs: readonly FileRun[], size: number, windows: Window[]): ContextWords | null {
  const plain = runs.every((run) => run.file.unit === PAGE);
  if (plain || runs.length === 1) return mapSideBySide(runs, size, runs[0].file.unit, windows);
  return mapScattered(runs, size, windows);
}

/**
 * Maps all runs into one window, in order. Every run but the first must begin, and every run but
 * the last must end, on a mapping unit.
 */
function mapSideBySide(
  runs: readonly FileRun[],
  size: number,
  unit: number,
  windows: Window[],
): ContextWords | null {
  const lead = runs[0].offset % unit;
  // Control words are accessed atomically: keep the alignment that the ABI gives them.
  if (lead % 16 !== 0) return null;
  const length = runs.reduce((sum, run) => sum + run.length, lead);
  const window = takeWindow(length, unit);
  if (window === null) return null;
  windows.push(window);
  let at = 0;
  for (const { file, offset, length } of runs) {
    if (at !== 0 && (at % unit !== 0 || offset % unit !== 0)) return null;
    const before = at === 0 ? lead : 0;
    const whole = Math.ceil((before + length) / unit) * unit;
    window.map(at, whole, file.fd, offset - before);
    at += before + length;
  }
  return new FlatWords(new Int32Array(window.buffer, lead, size >> 2));
}

/**
 * Maps page by page. A huge page cannot be mapped in part: each huge page that holds a page of the
 * context gets a window of its own.
 */
function mapScattered(
  runs: readonly FileRun[],
  size: number,
  windows: Window[],
): ContextWords | null {
  const lead = runs[0].offset % PAGE;
  if (lead % 16 !== 0) return null;
  const units = new Map<string, Window>();
  const pages: Int32Array[] = [];
  let at = lead;
  for (const { file, offset, length } of runs) {
    if (at !== lead && (at % PAGE !== 0 || offset % PAGE !== 0)) return null;
    for (let page = offset - (offset % PAGE); page < offset + length; page += PAGE) {
      const window = unitWindow(file, page - (page % file.unit), units, windows);
      if (window === null) return null;
      pages.push(new Int32Array(window.buffer, page % file.unit, PAGE >> 2));
    }
    at += length;
  }
  return new PagedWords(pages, lead >> 2, size);
}

function unitWindow(
  file: FileRun["file"],
  offset: number,
  units: Map<string, Window>,
  windows: Window[],
): Window | null {
  const key = `${file.id}/${offset}`;
  const known = units.get(key);
  if (known !== undefined) return known;
  const window = takeWindow(file.unit, file.unit);
  if (window === null) return null;
  windows.push(window);
  window.map(0, file.unit, file.fd, offset);
  units.set(key, window);
  return window;
}
