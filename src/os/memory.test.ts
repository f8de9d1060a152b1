import assert from "node:assert/strict";
import test from "node:test";
import { dup, openFds } from "../../test/support/os.ts";
import { close, fdTarget, fstat } from "./fd.ts";
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

test("memfd keeps its size when it is sealed", () => {
  withMemfd(PAGE, true, (fd) => {
    assert.equal(shrinkSeal(fd), "sealed");
    assert.equal(libc.ftruncate(fd, 0), -1);
    assert.equal(libc.ftruncate(fd, 2 * PAGE), -1);
    assert.equal(fstat(fd).size, PAGE);
  });
});

test("shrinkSeal seals a memfd and reports a file that supports no seals", () => {
  withMemfd(PAGE, false, (fd) => {
    assert.equal(shrinkSeal(fd), "applied");
    assert.equal(libc.ftruncate(fd, 0), -1);
    assert.equal(shrinkSeal(fd), "sealed");
  });
  const fd = libc.open("/dev/zero", 0, 0);
  assert.equal(shrinkSeal(fd), "unsealable");
  close(fd);
});

test("fstat returns the same identity when two descriptors share a memfd", () => {
  withMemfd(PAGE, true, (fd) => {
    const second = dup(fd);
    assert.deepEqual(fstat(second), fstat(fd));
    assert.match(fdTarget(second), /memfd:test/);
    close(second);
  });
});

test("mappings share their bytes when they map the same file", () => {
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

test("mapPagesOver replaces memory by a file's pages, and restoreMemory by zeroes", () => {
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

test("mapFile refuses a range when it exceeds the file", () => {
  withMemfd(2 * PAGE, true, (fd) => {
    const code = { code: "EFBIG" };
    assert.throws(() => mapFile(fd, 0, 3 * PAGE, { write: false }), code);
    assert.throws(() => mapFile(fd, 2 * PAGE, PAGE, { write: false }), code);
    assert.throws(() => mapFile(fd, -PAGE, PAGE, { write: false }), code);
  });
});

test("mapping errors name the call when offset, length or descriptor is invalid", () => {
  withMemfd(2 * PAGE, true, (fd) => {
    assert.throws(() => mapFile(fd, 5, PAGE, { write: false }), { code: "EINVAL", call: "mmap" });
    assert.throws(() => mapAnonymous(0), { code: "EINVAL" });
    assert.throws(() => mapAnonymous(2 ** 46 * 4), { code: "ENOMEM" });
  });
});

test("view is refused when it is not inside a live mapping", () => {
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
