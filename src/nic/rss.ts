/**
 * Receive side scaling as the driver asks for it (ability RSS): a key, and a table that chooses the
 * receive queue by the low bits of the hash.
 *
 * In guest memory: RSS_FLAG bits u16, entries of the table u16 (0 without STEER), HASH_TYPE bits
 * u16, zero u16, the key, then a u16 for each entry.
 */
import { HASH_TYPE, MAX_RSS_TABLE, RSS_FLAG, RSS_RESULT } from "../abi/index.ts";
import { type GuestMemory, RSS_KEY_BYTES, readGuest, whyRefused } from "../memory/index.ts";
import type { RecordReader } from "../memory/record.ts";
import type { Nic } from "./nic.ts";
import { newRssState, type RssState } from "./state.ts";

const HEADER = 8 + RSS_KEY_BYTES;
const FLAGS = RSS_FLAG.STEER | RSS_FLAG.REPORT;
const TYPES = Object.values(HASH_TYPE).reduce<number>((bits, bit) => bits | bit, 0);

/** RSS_STATE */
export function rssState({ state }: Nic): number {
  const { flags, result, table } = state.rss;
  return flags | (result << 8) | (table.length << 16);
}

/** Reads and uses the block at a guest address; 0: as before the first request. */
export function setRss(nic: Nic, address: number): void {
  const { state, memory, pairs, refusals } = nic;
  const rss =
    address === 0
      ? newRssState()
      : memory === null
        ? "bus mastering is off"
        : fetchRss(memory, address, pairs.length);
  if (typeof rss === "string") {
    state.rss = { ...state.rss, result: RSS_RESULT.INVALID };
    refusals.add("rss", `flow hash settings at 0x${address.toString(16)}: ${rss}`);
    return;
  }
  state.rss = rss;
  nic.useSettings();
}

/** @returns the settings, or why they are refused */
function fetchRss(memory: GuestMemory, at: number, pairs: number): RssState | string {
  const header = new Uint8Array(HEADER);
  if (!readGuest(memory, at, header)) return whyRefused(memory, at, HEADER, false);
  const [flags, entries, types, zero] = new Uint16Array(header.buffer, 0, 4);
  const key = [...header.subarray(HEADER - RSS_KEY_BYTES)];
  const problem = headerProblem(flags, entries, types) ?? (zero === 0 ? null : "byte 6 is not 0");
  if (problem !== null) return problem;
  const table = new Uint16Array(entries);
  const bytes = new Uint8Array(table.buffer);
  if (entries > 0 && !readGuest(memory, at + HEADER, bytes)) {
    return whyRefused(memory, at + HEADER, bytes.length, false);
  }
  const wrong = table.findIndex((queue) => queue >= pairs);
  if (wrong >= 0) return `entry ${wrong} is queue ${table[wrong]}: use 0 to ${pairs - 1}`;
  return { flags, types, key, table: [...table], result: RSS_RESULT.OK };
}

function headerProblem(flags: number, entries: number, types: number): string | null {
  if ((flags & ~FLAGS) !== 0) return `flags ${flags}: use 0 to ${FLAGS}`;
  if ((types & ~TYPES) !== 0) return `types ${types}: use 0 to ${TYPES}`;
  if ((flags & RSS_FLAG.STEER) === 0) {
    return entries === 0 ? null : `a table of ${entries} entries without STEER`;
  }
  const valid = entries > 0 && entries <= MAX_RSS_TABLE && (entries & (entries - 1)) === 0;
  return valid ? null : `a table of ${entries} entries: use a power of two up to ${MAX_RSS_TABLE}`;
}

/** Reads the settings of a record. @throws RecordError */
export function readRss(record: RecordReader, pairs: number): RssState {
  const flags = record.whole("flags", 0, FLAGS);
  const types = record.whole("types", 0, TYPES);
  const result = record.whole("result", 0, RSS_RESULT.INVALID);
  const key = record.wholes("key", RSS_KEY_BYTES, 0, 255);
  const table = record.wholes("table", MAX_RSS_TABLE, 0, pairs - 1);
  if (key.length !== (flags === 0 && key.length === 0 ? 0 : RSS_KEY_BYTES))
    record.refuse("key", `use ${RSS_KEY_BYTES} bytes`);
  const problem = headerProblem(flags, table.length, types);
  if (problem !== null) record.refuse("table", problem);
  return { flags, types, key, table, result };
}
