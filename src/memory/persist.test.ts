/** State records of memory: what is saved is restored, and nothing else is. */
import assert from "node:assert/strict";
import { openSync, readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { dup, openFds, openFdsOnce } from "../../test/support/os.ts";
import { refuseSpoilt, restored, saved } from "../../test/support/records.ts";
import { createEventFd } from "../os/eventfd.ts";
import { close, fstat } from "../os/fd.ts";
import { copyFromAddress, createMemfd, PAGE } from "../os/memory.ts";
import {
  type CountersRecord,
  newQueueCounters,
  prepareCounters,
  QUEUE_COUNTERS,
  saveCounters,
} from "./counters.ts";
import { prepareRegions, type RegionsRecord, saveRegions } from "./persist.ts";
import { type ClaimedFds, RecordError, readRecord, SavedFds } from "./record.ts";
import { RegionTable } from "./regions.ts";

const FILE_PAGES = 8;
const FIXTURE = new URL("../../../src/memory/testdata/state-v1.json", import.meta.url);

function withFiles(action: (files: number[]) => void): void {
  const before = openFds();
  const files = ["a", "b"].map((name) => createMemfd(name, FILE_PAGES * PAGE, { seal: true }));
  try {
    action(files);
  } finally {
    for (const fd of files) close(fd);
  }
  assert.equal(openFdsOnce(before), before, "no descriptor left");
}

const restoreTable = (table: RegionTable) => (record: unknown, fds: ClaimedFds) =>
  prepareRegions("memory", record, table, fds)();

const piece = fc.record({
  page: fc.nat(40),
  pages: fc.integer({ min: 1, max: 4 }),
  filePage: fc.nat(FILE_PAGES - 4),
  readable: fc.boolean(),
  writable: fc.boolean(),
  file: fc.integer({ min: -1, max: 1 }),
});

test("table is the same after save and restore, over the same files", () => {
  const gone = fc.nat(11);
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), gone, (pieces, gone) => {
      withFiles((files) => {
        const [first, second] = [new RegionTable(), new RegionTable()];
        for (const { page, pages, filePage, file, ...rights } of pieces) {
          const place = { address: page * PAGE, size: pages * PAGE, offset: filePage * PAGE };
          first.map({ ...place, ...rights }, file < 0 ? -1 : dup(files[file]));
        }
        const victim = first.ranges[gone];
        if (victim !== undefined) first.unmap(victim.address, victim.size);
        const generation = second.generation;
        const record = saved((fds) => saveRegions(first, fds));
        restored(record, restoreTable(second));
        assert.ok(second.generation > generation);
        assert.deepEqual(saveRegions(second, new SavedFds()), record.record);
        checkSame(first, second);
        first.clear();
        second.clear();
      });
    }),
    { numRuns: 100 },
  );
});

/** Both translate alike, into the same bytes. */
function checkSame(first: RegionTable, second: RegionTable): void {
  for (let page = 0; page < 44; page++) {
    for (const write of [false, true]) {
      const here = first.translate(page * PAGE, PAGE, write);
      const there = second.translate(page * PAGE, PAGE, write);
      assert.equal(here === 0, there === 0);
      if (here === 0) continue;
      const mark = new Uint8Array([page, write ? 1 : 0]);
      const seen = new Uint8Array(2);
      const file = first.ranges.find(
        ({ address, size }) => page * PAGE >= address && page * PAGE < address + size,
      )?.file;
      assert.ok(file);
      new Uint8Array(file.mapping.view(here - file.mapping.address, 2)).set(mark);
      copyFromAddress(seen, there);
      assert.deepEqual(seen, mark);
    }
  }
}

/** Two files, a ROM without a descriptor, and memory in a file that cannot be sealed. */
function exampleTable(files: readonly number[]): RegionTable {
  const table = new RegionTable();
  const [rw, ro] = [
    { readable: true, writable: true },
    { readable: true, writable: false },
  ];
  const unsealed = openSync("/proc/self/exe", "r");
  assert.equal(table.map({ address: 0, size: 4 * PAGE, offset: 0, ...rw }, dup(files[0])), 0);
  assert.equal(table.map({ address: 8 * PAGE, size: PAGE, offset: PAGE, ...ro }, dup(files[1])), 0);
  assert.equal(table.map({ address: 16 * PAGE, size: PAGE, offset: 0, ...ro }, -1), 0);
  assert.equal(table.map({ address: 24 * PAGE, size: PAGE, offset: 0, ...ro }, unsealed), 0);
  return table;
}

test("spoilt records of memory are refused, and nothing is mapped or closed", () => {
  withFiles((files) => {
    const table = exampleTable(files);
    const { record, fds } = saved((list) => saveRegions(table, list));
    const refused = refuseSpoilt(record, fds, (wrong, claimed) => {
      const fresh = new RegionTable();
      try {
        restoreTable(fresh)(wrong, claimed);
        return saveRegions(fresh, new SavedFds());
      } finally {
        fresh.clear();
      }
    });
    assert.ok(refused > 300, `${refused} forms were refused`);
    table.clear();
    for (const fd of fds) close(fd);
  });
});

test("record of version 1 restores the table that it was saved from", () => {
  withFiles((files) => {
    const record = JSON.parse(readFileSync(FIXTURE, "utf8")) as {
      memory: RegionsRecord;
      counters: CountersRecord;
    };
    // The kernel chooses inodes: the fixture has the places of the files in their stead.
    const memory = {
      ...record.memory,
      files: record.memory.files.map(({ fd }) => {
        const { dev, ino } = fstat(files[fd]);
        return { fd, id: `${dev}:${ino}` };
      }),
    };
    const table = new RegionTable();
    restored({ record: memory, fds: files.map(dup) }, restoreTable(table));
    assert.deepEqual(saveRegions(table, new SavedFds()), memory);
    assert.notEqual(table.translate(8 * PAGE, PAGE, false), 0);
    assert.equal(table.translate(8 * PAGE, PAGE, true), 0);
    const slots = newQueueCounters();
    prepareCounters("counters", record.counters, slots)();
    // Counters that later releases have added start at 0.
    const counters = { ...record.counters.counters, limited: 0, software: 0 };
    assert.deepEqual(saveCounters(slots), { ...record.counters, counters });
    table.clear();
  });
});

for (const [what, spoil, message] of [
  ["descriptor of another file", (files: number[]) => [files[1], files[0]], /the descriptor is of/],
  ["closed descriptor", () => [9999, 9998], /cannot be sealed/],
  ["eventfd", (files: number[]) => [createEventFd(), dup(files[1])], /cannot be sealed/],
] as const) {
  test(`table is refused when a file comes as a ${what}`, () => {
    withFiles((files) => {
      const table = exampleTable(files);
      const { record, fds } = saved((list) => saveRegions(table, list));
      const wrong = spoil(files);
      const fresh = new RegionTable();
      const restore = () => restored({ record, fds: wrong }, restoreTable(fresh));
      assert.throws(restore, { code: "RECORD", message });
      assert.deepEqual([fresh.ranges.length, fresh.files.length], [0, 0]);
      table.clear();
      for (const fd of [...fds, ...wrong]) if (!files.includes(fd)) close(fd);
    });
  });
}

test("counters are the same after save and restore, and spoilt records are refused", () => {
  const slots = newQueueCounters();
  for (const i of QUEUE_COUNTERS.keys()) slots[i] = 2 ** i * 1e6;
  const attempt = (record: unknown): CountersRecord => {
    const fresh = newQueueCounters();
    prepareCounters("tx0", record, fresh)();
    return saveCounters(fresh);
  };
  const { record } = saved(() => saveCounters(slots));
  assert.deepEqual(attempt(record), saveCounters(slots));
  assert.ok(refuseSpoilt(record, [], attempt) > 100);
});

test("message of a refused record names the field, its value and what it must be", () => {
  const read = (value: unknown) =>
    readRecord("nic", value, 1, (record) =>
      record.list("queues", 2, (queue) => queue.whole("bufs", 16, 8192)),
    );
  const message = (value: unknown): string => {
    try {
      return `accepted ${read(value)}`;
    } catch (error) {
      assert.ok(error instanceof RecordError);
      return error.message;
    }
  };
  assert.equal(message({ version: 1, queues: [{ bufs: 16 }] }), "accepted 16");
  assert.equal(
    message({ version: 1, queues: [{ bufs: 16 }, { bufs: 7.5 }] }),
    "nic.queues[1].bufs = 7.5: use a whole number from 16 to 8192",
  );
  assert.equal(
    message({ version: 2, queues: [] }),
    "nic.version = 2: this release reads version 1",
  );
  assert.equal(
    message({ version: 1, queues: [], more: "x" }),
    'nic.more = "x": this release does not know the field',
  );
  assert.equal(
    message({ version: 1, queues: new Array(3) }),
    "nic.queues = a list of 3: use a list of at most 2",
  );
  assert.equal(message([]), "nic = a list of 0: use an object");
});
