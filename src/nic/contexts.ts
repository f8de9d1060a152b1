/**
 * Contexts: finding the guest memory that the driver registers for a queue, and making sure, for as long
 * as it is used, that it is still there.
 */
import { CONTEXT_PAGE } from "../abi/index.ts";
import { type GuestMemory, mapGuestPages } from "../memory/index.ts";
import { viewAt } from "../os/libc.ts";
import type { Mapping } from "../os/memory.ts";
import type { ContextRecord } from "./state.ts";

/** A registered context, mapped. */
export interface MappedContext {
  readonly record: ContextRecord;
  readonly bytes: ArrayBuffer;
  /** Host address of every page (one for a contiguous context) when it was mapped. */
  readonly hosts: readonly number[];
  /** Ours to unmap; null where the view is into memory that is mapped anyway. */
  readonly mapping: Mapping | null;
}

/** @returns null where `size` bytes at `address` are not writable guest memory. */
export function mapContiguous(
  memory: GuestMemory,
  address: number,
  size: number,
): MappedContext | null {
  const host = memory.translate(address, size, true);
  // Control words are accessed atomically, so they must be aligned as the ABI has them.
  if (host === 0 || host % 16 !== 0) return null;
  return {
    record: { kind: "contiguous", address, pages: [], size },
    bytes: viewAt(host, size),
    hosts: [host],
    mapping: null,
  };
}

/**
 * Maps a context given as a list of guest page addresses (u64, little endian) at `list`.
 * @returns null where the list or a page is not guest memory.
 */
export function mapPageList(memory: GuestMemory, list: number, size: number): MappedContext | null {
  const count = Math.ceil(size / CONTEXT_PAGE);
  const at = memory.translate(list, count * 8, false);
  if (at === 0) return null;
  // Copied once: the guest may change it any time.
  const words = new Uint32Array(viewAt(at, count * 8).slice(0));
  const pages = Array.from({ length: count }, (_, i) => words[2 * i + 1] * 2 ** 32 + words[2 * i]);
  return mapPages({ kind: "pages", address: list, pages, size }, memory);
}

function mapPages(record: ContextRecord, memory: GuestMemory): MappedContext | null {
  const hosts = record.pages.map((page) => memory.translate(page, CONTEXT_PAGE, true));
  if (hosts.includes(0)) return null;
  const mapping = mapGuestPages(memory, record.pages);
  if (mapping === null) return null;
  return { record, bytes: mapping.view(0, record.size), hosts, mapping };
}

/** Is every byte of the context still the memory that it was when it was mapped? */
export function stillThere(memory: GuestMemory, { record, hosts }: MappedContext): boolean {
  if (record.kind === "contiguous") {
    return memory.translate(record.address, record.size, true) === hosts[0];
  }
  return record.pages.every((page, i) => memory.translate(page, CONTEXT_PAGE, true) === hosts[i]);
}
