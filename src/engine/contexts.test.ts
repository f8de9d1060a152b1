/** Contexts on huge pages, and refused ones. Scattered ones: src/guest/scattered.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { dup } from "../../test/support/os.ts";
import { RegionTable } from "../memory/index.ts";
import { OsError } from "../os/errors.ts";
import { close } from "../os/fd.ts";
import { createMemfd, type Mapping, mapFile, mappingUnit, PAGE, viewsMade } from "../os/memory.ts";
import {
  type MappedContext,
  mapContiguous,
  mapPageList,
  releaseContext,
  stillThere,
} from "./contexts.ts";

const SIZE = 10_000;

/** Makes a memfd on huge pages and maps it; or says why not. */
function hugeFile(size: number): { fd: number; mapping: Mapping } | string {
  const fd = createMemfd("huge", size, { huge: true });
  try {
    return { fd, mapping: mapFile(fd, 0, size, { write: true }) };
  } catch (error) {
    close(fd);
    if (!(error instanceof OsError)) throw error;
    return `no huge pages are reserved (vm.nr_hugepages): ${error.message}`;
  }
}

/** Writes each word through the context and finds it in the guest's memory. */
function expectWords(context: MappedContext | string, bytes: Uint8Array, pages: number[]): void {
  assert.ok(typeof context === "object", String(context));
  const words = new Int32Array(bytes.buffer);
  for (let i = 0; i < SIZE >> 2; i++) {
    if (i % 2 === 0) context.words.set(i, i + 1);
    else context.words.store(i, i + 1);
  }
  for (let i = 0; i < SIZE >> 2; i++) {
    assert.equal(words[(pages[i >> 10]! >> 2) + (i & 1023)], i + 1);
    assert.equal(context.words.get(i), context.words.load(i));
  }
}

test("windows are reused when contexts on huge pages are mapped and released", (t) => {
  const size = 4 * 2 ** 21;
  const file = hugeFile(size);
  if (typeof file === "string") return t.skip(file);
  const { fd, mapping } = file;
  const table = new RegionTable();
  try {
    assert.equal(mappingUnit(fd), 2 ** 21);
    const request = { address: 0, size, offset: 0, readable: true, writable: true };
    assert.equal(table.map(request, dup(fd)), 0);
    const bytes = new Uint8Array(mapping.view(0, size));
    const pages = [3 * 2 ** 21, 5 * PAGE, 2 ** 21 - PAGE];
    const list = new Uint32Array(pages.flatMap((page) => [page, 0]));
    bytes.set(new Uint8Array(list.buffer), 64);
    const border = 2 ** 21 - 2 * PAGE;
    let views = 0;
    for (let n = 0; n < 20; n++) {
      bytes.fill(0, PAGE);
      const scattered = mapPageList(table, 64, SIZE);
      expectWords(scattered, bytes, pages);
      const whole = mapContiguous(table, border, SIZE);
      expectWords(whole, bytes, [border, border + PAGE, border + 2 * PAGE]);
      assert.ok(stillThere(table, scattered as MappedContext));
      for (const context of [scattered, whole]) releaseContext(context as MappedContext);
      if (n === 0) views = viewsMade();
    }
    assert.equal(viewsMade(), views);
  } finally {
    table.clear();
    mapping.unmap();
    close(fd);
  }
});

test("refused context names the range that cannot be mapped", () => {
  const table = new RegionTable();
  const rw = { size: 4 * PAGE, offset: 0, readable: true, writable: true };
  table.map({ ...rw, address: 0 }, createMemfd("ram", 4 * PAGE));
  table.map({ ...rw, address: 4 * PAGE }, -1);
  table.map({ ...rw, address: 8 * PAGE, writable: false }, createMemfd("rom", 4 * PAGE));
  const cases: [number, RegExp][] = [
    [2 * PAGE, /the memory at 0x4000 is not shared/],
    [8 * PAGE, /the memory at 0x8000 may not be written/],
    [16 * PAGE, /no memory is mapped at 0x10000/],
    [2 ** 64, /no memory is mapped/],
    [8, /is not aligned/],
  ];
  for (const [address, why] of cases)
    assert.match(String(mapContiguous(table, address, SIZE)), why);
  assert.match(
    String(mapPageList(table, 16 * PAGE, SIZE)),
    /has no page list: no memory is mapped/,
  );
  // A list of zeros names page 0, which is memory. An unaligned page is refused.
  const odd = mapContiguous(table, 0, PAGE) as MappedContext;
  odd.words.set(2, 100);
  assert.match(String(mapPageList(table, 0, SIZE)), /a page at 0x64, which is not aligned/);
  releaseContext(odd);
  table.clear();
});
