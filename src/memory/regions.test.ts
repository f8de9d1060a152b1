import assert from "node:assert/strict";
import { ftruncateSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { dup, openFds, openFdsOnce, strangers } from "../../test/support/os.ts";
import { close } from "../os/fd.ts";
import { createMemfd, PAGE } from "../os/memory.ts";
import { whyRefused } from "./guest-memory.ts";
import { RegionTable } from "./regions.ts";

const FILE_PAGES = 16;

function withTable(action: (table: RegionTable, newFd: () => number) => void, count = true): void {
  const before = openFds();
  const memfd = createMemfd("ram", FILE_PAGES * PAGE, { seal: true });
  const table = new RegionTable();
  try {
    action(table, () => dup(memfd));
  } finally {
    table.clear();
    close(memfd);
  }
  // After tests of the process's other descriptors, whose ends
  // may close late, they cannot be counted.
  if (count) assert.equal(openFdsOnce(before), before);
}

interface Piece {
  page: number;
  pages: number;
  filePage: number;
  readable: boolean;
  writable: boolean;
  shared: boolean;
}

const piece: fc.Arbitrary<Piece> = fc.record({
  page: fc.nat(40),
  pages: fc.integer({ min: 1, max: 6 }),
  filePage: fc.nat(FILE_PAGES - 6),
  readable: fc.boolean(),
  writable: fc.boolean(),
  shared: fc.boolean(),
});

function add(table: RegionTable, newFd: () => number, p: Piece): number {
  const { readable, writable } = p;
  const request = {
    address: p.page * PAGE,
    size: p.pages * PAGE,
    offset: p.shared ? p.filePage * PAGE : 0,
    readable,
    writable,
  };
  return table.map(request, p.shared ? newFd() : -1);
}

/** The plain answer: every byte looked up by itself in a list. */
function expected(pieces: Piece[], address: number, length: number, write: boolean): number | null {
  const piece = pieces.find((p) => address >= p.page * PAGE && address < (p.page + p.pages) * PAGE);
  if (piece === undefined || !piece.shared || length <= 0) return null;
  if (!(write ? piece.writable : piece.readable)) return null;
  if (address + length > (piece.page + piece.pages) * PAGE) return null;
  return piece.filePage * PAGE + (address - piece.page * PAGE);
}

test("translate returns an address only when one range has the bytes and allows access", () => {
  const lookups = fc.array(
    fc.tuple(fc.nat(48 * PAGE), fc.oneof(fc.nat(64), fc.nat(8 * PAGE)), fc.boolean()),
    { maxLength: 30 },
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), lookups, fc.nat(11), (pieces, asked, gone) => {
      withTable((table, newFd) => {
        let held = pieces.filter((p) => add(table, newFd, p) === 0);
        const check = () => {
          const base = table.files[0]?.mapping.address ?? 0;
          for (const [address, length, write] of asked) {
            const offset = expected(held, address, length, write);
            const wanted = offset === null ? 0 : base + offset;
            assert.equal(table.translate(address, length, write), wanted);
          }
        };
        check();
        const victim = held[gone];
        if (victim === undefined) return;
        const generation = table.generation;
        assert.equal(table.unmap(victim.page * PAGE, victim.pages * PAGE), 0);
        assert.ok(table.generation > generation);
        held = held.filter((p) => p !== victim);
        check();
      });
    }),
    { numRuns: 300 },
  );
});

test("ranges never overlap when maps are random", () => {
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      withTable((table, newFd) => {
        for (const p of pieces) add(table, newFd, p);
        let end = 0;
        for (const { address, size } of table.ranges) {
          assert.ok(address >= end);
          end = address + size;
        }
      });
    }),
    { numRuns: 200 },
  );
});

test("translate returns 0 when address or length wraps, overflows or is not a number", () => {
  withTable((table, newFd) => {
    const top = 2 ** 53 - 4 * PAGE;
    const rw = { readable: true, writable: true, offset: 0 };
    assert.equal(table.map({ ...rw, address: 0, size: PAGE }, newFd()), 0);
    assert.equal(table.map({ ...rw, address: top, size: 4 * PAGE }, newFd()), 0);
    assert.notEqual(table.translate(top, 4 * PAGE, true), 0);
    const odd = [2 ** 53, 2 ** 64, 2 ** 64 - 1, -1, -PAGE, Number.NaN, Infinity, -Infinity];
    for (const value of odd) {
      assert.equal(table.translate(value, 1, false), 0, `address ${value}`);
      assert.equal(table.translate(0, value, false), 0, `length ${value}`);
      assert.equal(table.translate(top, value, false), 0, `length ${value}`);
      assert.equal(table.translate(value, value, false), 0);
    }
    assert.equal(table.translate(top + PAGE, 4 * PAGE, false), 0, "past the last byte");
    assert.equal(table.translate(0, 0, false), 0);
    assert.equal(table.map({ ...rw, address: 2 ** 53, size: PAGE }, newFd()), 22);
    assert.equal(table.map({ ...rw, address: PAGE, size: 2 ** 64 }, newFd()), 22);
    assert.equal(
      table.map({ ...rw, address: PAGE, size: PAGE, offset: 2 ** 64 - PAGE }, newFd()),
      22,
    );
  });
});

test("files are refused when there are too many, and all are closed at the end", () => {
  withTable((table) => {
    const results = Array.from({ length: 280 }, (_, i) => {
      const request = { address: i * PAGE, size: PAGE, offset: 0, readable: true, writable: true };
      return table.map(request, createMemfd(`m${i}`, PAGE, {}));
    });
    assert.deepEqual([results[271], results[272], table.files.length], [0, 12, 272]);
  });
});

const whole = (page: number, pages: number, offset = 0) => ({
  address: page * PAGE,
  size: pages * PAGE,
  offset,
  readable: true,
  writable: true,
});

test("replace leaves the old table when a part of the new one is refused", () => {
  withTable((table, newFd) => {
    assert.equal(table.replace([whole(0, 4), whole(8, 4, 4 * PAGE)], [newFd(), newFd()]), 0);
    assert.equal(table.files.length, 1, "the same file twice is mapped once");
    const host = table.translate(8 * PAGE, 4 * PAGE, true);
    assert.equal(host, table.files[0].mapping.address + 4 * PAGE);

    const refused = [
      [whole(0, 4), whole(3, 4), whole(20, 1)],
      [whole(0, 4), whole(8, FILE_PAGES + 1), whole(40, 1)],
      [whole(0, 4), { ...whole(8, 1), size: 2 ** 63 }, whole(20, 1)],
      [whole(0, 0), whole(8, 1), whole(20, 1)],
    ];
    for (const requests of refused) {
      assert.notEqual(table.replace(requests, [newFd(), newFd(), newFd()]), 0);
      assert.equal(table.ranges.length, 2);
      assert.equal(table.translate(8 * PAGE, 4 * PAGE, true), host);
    }
    const { generation } = table;
    assert.equal(table.replace([], []), 0);
    assert.ok(table.generation > generation);
    assert.equal(table.translate(0, 1, false), 0);
  });
});

test("files of a replaced table stay mapped until they are pruned", () => {
  withTable((table, newFd) => {
    const other = createMemfd("other", PAGE, { seal: true });
    assert.equal(table.replace([whole(0, 4)], [newFd()]), 0);
    const host = table.translate(0, 8, true);
    assert.equal(table.replace([whole(0, 1)], [other]), 0);
    assert.notEqual(table.translate(0, 8, true), host);
    assert.equal(table.files.length, 2);
    table.prune();
    assert.equal(table.files.length, 1);
    assert.equal(table.translate(0, 4 * PAGE, true), 0);
    assert.notEqual(table.translate(0, PAGE, true), 0);
  });
});

test("a file is unmapped with its last range, so memory can be replugged without limit", () => {
  withTable((table) => {
    const mapped = () => readFileSync("/proc/self/maps", "latin1").includes("memfd:plugged");
    const fds = openFds();
    for (let n = 0; n < 600; n++) {
      const memfd = createMemfd("plugged", 4 * PAGE);
      assert.equal(table.map(whole(0, 2), dup(memfd)), 0, `file ${n}`);
      assert.equal(table.map(whole(2, 2, 2 * PAGE), memfd), 0);
      assert.equal(table.files.length, 1);
      assert.equal(table.unmap(0, 2 * PAGE), 0);
      assert.notEqual(table.translate(2 * PAGE, PAGE, true), 0, "the other range is there");
      assert.equal(table.unmap(2 * PAGE, 2 * PAGE), 0);
      assert.equal(table.files.length, 0);
      assert.equal(table.translate(2 * PAGE, 1, false), 0);
    }
    assert.equal(openFds(), fds);
    assert.ok(!mapped(), "not mapped any more");
  });
});

test("memory that cannot be sealed is used only when allowed, with one warning", () => {
  // One that knows no seals, if the folder is on a disk, and one whose seals cannot be changed.
  const paths = [tmpdir(), "/dev/shm"].map((folder) => join(folder, `unsealed-${process.pid}`));
  const open = (path: string): number => {
    const fd = openSync(path, "w+");
    ftruncateSync(fd, PAGE);
    return fd;
  };
  try {
    for (const allowUnsealed of [false, true]) {
      const warnings: string[] = [];
      const table = new RegionTable({ allowUnsealed, warn: (_code, text) => warnings.push(text) });
      assert.equal(table.map(whole(0, 1), open(paths[0])), 0);
      assert.equal(table.map(whole(1, 1), open(paths[1])), 0);
      assert.equal(table.translate(0, PAGE, true) !== 0, allowUnsealed);
      assert.equal(table.translate(PAGE, PAGE, true) !== 0, allowUnsealed);
      assert.equal(table.files.length, allowUnsealed ? 2 : 0);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0], allowUnsealed ? /kills this process/ : /is not used.*memfd/);
      const why = whyRefused(table, 0, PAGE, true);
      assert.equal(/cannot be sealed/.test(why), !allowUnsealed, why);
      table.clear();
    }
  } finally {
    for (const path of paths) rmSync(path, { force: true });
  }
});

test("a descriptor that is not a file is refused even when unsealed files are allowed", () => {
  for (const allowUnsealed of [false, true]) {
    for (const { fd, name } of strangers()) {
      const table = new RegionTable({ allowUnsealed });
      assert.equal(table.map(whole(0, 1), fd) === 0, table.ranges.length === 1, name);
      assert.equal(table.translate(0, 1, false), 0, name);
      table.clear();
    }
  }
});

test("unmap removes all ranges that it covers, and none when it covers one in part", () => {
  const stretch = fc.record({ page: fc.nat(48), pages: fc.integer({ min: 1, max: 48 }) });
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), stretch, (pieces, { page, pages }) => {
      withTable((table, newFd) => {
        const held = pieces.filter((p) => add(table, newFd, p) === 0);
        const end = page + pages;
        const touched = held.filter((p) => p.page < end && p.page + p.pages > page);
        const whole = touched.every((p) => p.page >= page && p.page + p.pages <= end);
        const wanted = touched.length > 0 && whole ? 0 : 2;
        const { generation } = table;
        assert.equal(table.unmap(page * PAGE, pages * PAGE), wanted);
        assert.equal(table.generation > generation, wanted === 0);
        const left = wanted === 0 ? held.filter((p) => !touched.includes(p)) : held;
        const starts = left.map((p) => p.page * PAGE).sort((a, b) => a - b);
        assert.deepEqual(
          table.ranges.map((range) => range.address),
          starts,
        );
        assert.equal(table.files.length, left.some((p) => p.shared) ? 1 : 0);
      }, false);
    }),
    { numRuns: 500 },
  );
  withTable((table, newFd) => {
    assert.equal(table.map(whole(0, 1), newFd()), 0);
    for (const size of [2 ** 64, Number.POSITIVE_INFINITY]) {
      assert.equal(table.unmap(2 ** 64, size), 2);
      assert.equal(table.unmap(PAGE, size), 2);
      assert.equal(table.unmap(0, Number.NaN), 2);
    }
    assert.equal(table.unmap(0, 2 ** 64), 0, "all of the address space");
  });
});
