/**
 * For tests of state records: through JSON as a file would hold them, and every way to spoil one.
 */
import assert from "node:assert/strict";
import { ClaimedFds, RecordError, SavedFds } from "../../src/memory/record.ts";
import { close } from "../../src/os/fd.ts";
import { dup } from "./os.ts";

/** Saves, and returns the record as JSON gives it back, with second descriptors. */
export function saved(save: (fds: SavedFds) => unknown): { record: unknown; fds: number[] } {
  const fds = new SavedFds();
  const record: unknown = JSON.parse(JSON.stringify(save(fds)));
  return { record, fds: fds.fds.map(dup) };
}

/** Restores with all descriptors that came along. */
export function restored(
  { record, fds }: { record: unknown; fds: readonly number[] },
  restore: (record: unknown, fds: ClaimedFds) => void,
): void {
  const claimed = new ClaimedFds(fds);
  restore(record, claimed);
  claimed.closeRest();
}

/** What stands in the place of a field: other types, limits, and what is out of all limits. */
const WRONG: readonly unknown[] = [
  undefined,
  null,
  true,
  false,
  -1,
  0,
  1,
  0.5,
  255,
  4096,
  2 ** 32,
  2 ** 53,
  -(2 ** 53),
  1e300,
  "",
  "x",
  "ff",
  "f".repeat(200_000),
  [],
  [0],
  new Array(70_000).fill(0),
  {},
  { __proto__: null, length: 3 },
];

/** Paths of all fields, and of the record itself. */
function* pathsOf(value: unknown, path: readonly string[] = []): Generator<readonly string[]> {
  yield path;
  if (typeof value !== "object" || value === null) return;
  for (const [key, inner] of Object.entries(value)) yield* pathsOf(inner, [...path, key]);
}

function changed(value: unknown, path: readonly string[], to: unknown): unknown {
  if (path.length === 0) return to;
  const [key, ...rest] = path;
  const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<
    string,
    unknown
  >;
  const inner = changed(copy[key], rest, to);
  if (inner === undefined && !Array.isArray(copy)) delete copy[key];
  else copy[key] = inner;
  return copy;
}

/** The record with each field in turn replaced by each wrong value, and with a field too many. */
export function* spoilt(record: unknown): Generator<{ what: string; record: unknown }> {
  for (const path of pathsOf(record)) {
    for (const wrong of WRONG) {
      const what = `${path.join(".")} = ${JSON.stringify(wrong)?.slice(0, 20)}`;
      yield { what, record: changed(record, path, wrong) };
    }
    yield { what: `${path.join(".")}.extra`, record: changed(record, [...path, "extra"], 1) };
  }
}

/**
 * As JSON. The places of descriptors move up if one of them is left out, and a counter that is left
 * out is 0.
 */
function normal(record: unknown): string {
  return JSON.stringify(record, (key, value: unknown) => {
    if ((key === "fd" || key === "connection") && typeof value === "number" && value >= 0) {
      return "place";
    }
    if (key !== "counters" || typeof value !== "object" || value === null) return value;
    if (Object.hasOwn(value, "version")) return value;
    return Object.fromEntries(Object.entries(value).filter(([, count]) => count !== 0));
  });
}

/**
 * Restores every spoilt form of a record, each into something fresh. Each is refused with one clear
 * error, or it is a record that the owner could have saved itself.
 * @param attempt restores, and returns what the fresh owner saves then
 * @param resolved forms that the owner replaces by what they stand for
 * @returns how many forms were refused
 */
export function refuseSpoilt(
  record: unknown,
  fds: readonly number[],
  attempt: (record: unknown, fds: ClaimedFds) => unknown,
  resolved: RegExp = /^$/,
): number {
  let refused = 0;
  for (const { what, record: wrong } of spoilt(record)) {
    const copies = fds.map(dup);
    const claimed = new ClaimedFds(copies);
    let again: unknown;
    try {
      again = attempt(wrong, claimed);
    } catch (error) {
      assert.ok(error instanceof RecordError, `${what}: ${(error as Error).stack}`);
      assert.ok(error.message.length < 400, what);
      // They are the caller's still: closing one twice would show as another test's bad descriptor.
      for (const fd of copies) close(fd);
      refused++;
      continue;
    }
    claimed.closeRest();
    if (!resolved.test(what)) assert.equal(normal(again), normal(wrong), what);
  }
  return refused;
}
