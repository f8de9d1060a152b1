import assert from "node:assert/strict";
import test from "node:test";
import { openFds } from "../../test/support/os.ts";
import { close, dup, fdTarget, fstat } from "./fd.ts";
import * as libc from "./libc.ts";
import {
  createMemfd,
  mapAnonymous,
  mapFile,
  mapPagesOver,
  PAGE,
  restoreMemory,
  shrinkSeal,
} from "./memory.ts";

function withMemfd(size: number, seal: boolean, action: (fd: number) => void): void {
  const before = openFds();
  const fd = createMemfd("test", size, { seal });
  try {
    action(fd);
  } finally {
    close(fd);
  }
  assert.equal(openFds(), before);
}

test("a sealed memfd cannot change its size", () => {
  withMemfd(PAGE, true, (fd) => {
    assert.equal(shrinkSeal(fd), "sealed");
    assert.equal(libc.ftruncate(fd, 0), -1);
    assert.equal(libc.ftruncate(fd, 2 * PAGE), -1);
    assert.equal(fstat(fd).size, PAGE);
  });
});

test("an open memfd gets the shrink seal applied, a file without seals says so", () => {
  withMemfd(PAGE, false, (fd) => {
    assert.equal(shrinkSeal(fd), "applied");
    assert.equal(libc.ftruncate(fd, 0), -1);
    assert.equal(shrinkSeal(fd), "sealed");
  });
  const fd = libc.open("/dev/zero", 0, 0);
  assert.equal(shrinkSeal(fd), "unsealable");
  close(fd);
});

test("two descriptors of one memfd have one identity", () => {
  withMemfd(PAGE, true, (fd) => {
    const second = dup(fd);
    assert.deepEqual(fstat(second), fstat(fd));
    assert.match(fdTarget(second), /memfd:test/);
    close(second);
  });
});

test("two mappings of one file share their bytes", () => {
  withMemfd(4 * PAGE, true, (fd) => {
    const a = mapFile(fd, 0, 4 * PAGE, { write: true });
    const b = mapFile(fd, PAGE, PAGE, { write: false });
    new Uint8Array(a.view(PAGE + 5, 1))[0] = 77;
    assert.equal(new Uint8Array(b.view(0, PAGE))[5], 77);
    a.unmap();
    a.unmap();
    b.unmap();
  });
});

test("pages of a file take the place of a mapping's memory, and zeroes that of the pages", () => {
  withMemfd(4 * PAGE, true, (fd) => {
    const whole = mapFile(fd, 0, 4 * PAGE, { write: true });
    const file = new Uint8Array(whole.view(0, 4 * PAGE));
    for (let page = 0; page < 4; page++) file[page * PAGE] = 10 + page;
    const area = mapAnonymous(2 * PAGE);
    const bytes = new Uint8Array(area.view(0, 2 * PAGE));
    mapPagesOver(bytes, fd, [3 * PAGE, PAGE]);
    assert.deepEqual([bytes[0], bytes[PAGE]], [13, 11]);
    bytes[PAGE + 1] = 7;
    assert.equal(file[PAGE + 1], 7);
    restoreMemory(bytes);
    assert.deepEqual([bytes[0], bytes[PAGE]], [0, 0]);
    assert.equal(file[PAGE + 1], 7);
    const odd = { code: "EINVAL" };
    assert.throws(() => mapPagesOver(bytes, fd, [0]), odd);
    assert.throws(() => mapPagesOver(bytes.subarray(8, 8 + PAGE), fd, [0]), odd);
    assert.throws(() => mapPagesOver(bytes, fd, [0, 4 * PAGE]), { code: "EFBIG" });
    assert.throws(() => restoreMemory(bytes.subarray(0, 5)), odd);
    area.unmap();
    whole.unmap();
  });
});

test("ranges past the end of the file are refused before they can kill", () => {
  withMemfd(2 * PAGE, true, (fd) => {
    const code = { code: "EFBIG" };
    assert.throws(() => mapFile(fd, 0, 3 * PAGE, { write: false }), code);
    assert.throws(() => mapFile(fd, 2 * PAGE, PAGE, { write: false }), code);
    assert.throws(() => mapFile(fd, -PAGE, PAGE, { write: false }), code);
  });
});

test("odd offsets, empty lengths and closed descriptors are errors with the call's name", () => {
  withMemfd(2 * PAGE, true, (fd) => {
    assert.throws(() => mapFile(fd, 5, PAGE, { write: false }), { code: "EINVAL", call: "mmap" });
    assert.throws(() => mapAnonymous(0), { code: "EINVAL" });
    assert.throws(() => mapAnonymous(2 ** 46 * 4), { code: "ENOMEM" });
  });
});

test("a view lies inside a live mapping or is refused", () => {
  const mapping = mapAnonymous(2 * PAGE);
  for (const [offset, length] of [
    [0, 2 * PAGE + 1],
    [-1, 1],
    [PAGE, PAGE + 1],
    [0.5, 1],
    [0, 0],
  ]) {
    assert.throws(() => mapping.view(offset!, length!), { code: "EINVAL" });
  }
  mapping.unmap();
  assert.throws(() => mapping.view(0, 1), /already unmapped/);
});
