import assert from "node:assert/strict";
import { test } from "node:test";
import { close } from "./fd.ts";
import { createMemfd, mapFile, PAGE, viewsMade } from "./memory.ts";
import { giveWindow, takeWindow } from "./window.ts";

/** A file of `pages` pages, each with its number in its first byte. */
function withFile(pages: number, action: (fd: number, bytes: Uint8Array) => void): void {
  const fd = createMemfd("file", pages * PAGE, { seal: true });
  const whole = mapFile(fd, 0, pages * PAGE, { write: true });
  const bytes = new Uint8Array(whole.view(0, pages * PAGE));
  for (let page = 0; page < pages; page++) bytes[page * PAGE] = 10 + page;
  try {
    action(fd, bytes);
  } finally {
    whole.unmap();
    close(fd);
  }
}

test("window maps pages of files side by side and writes to the files", () => {
  withFile(8, (one, oneBytes) => {
    withFile(4, (other) => {
      const window = takeWindow(5 * PAGE)!;
      const bytes = new Uint8Array(window.buffer);
      window.map(0, PAGE, one, 7 * PAGE);
      window.map(PAGE, 2 * PAGE, one, 3 * PAGE);
      window.map(3 * PAGE, PAGE, other, 0);
      window.map(4 * PAGE, PAGE, one, 3 * PAGE);
      assert.deepEqual(
        [0, 1, 2, 3, 4].map((page) => bytes[page * PAGE]),
        [17, 13, 14, 10, 13],
      );
      bytes[4 * PAGE + 1] = 5;
      assert.deepEqual([bytes[PAGE + 1], oneBytes[3 * PAGE + 1]], [5, 5]);
      giveWindow(window);
    });
  });
});

test("window is reused without a second view when it was given back", () => {
  withFile(1, (fd) => {
    giveWindow(takeWindow(3 * PAGE)!);
    const before = viewsMade();
    for (let i = 0; i < 10_000; i++) {
      const window = takeWindow(3 * PAGE + (i % PAGE))!;
      window.map(0, PAGE, fd, 0);
      assert.equal(new Uint8Array(window.buffer)[0], 10);
      giveWindow(window);
    }
    assert.equal(viewsMade(), before);
    const [a, b] = [takeWindow(3 * PAGE)!, takeWindow(3 * PAGE)!];
    assert.notEqual(a.address, b.address, "not while it is in use");
    giveWindow(a);
    giveWindow(b);
  });
});

test("takeWindow aligns windows and refuses one that is too long", () => {
  const unit = 2 ** 21;
  const window = takeWindow(PAGE, unit)!;
  assert.deepEqual([window.address % unit, window.length, window.unit], [0, unit, unit]);
  giveWindow(window);
  assert.equal(takeWindow(2 ** 31 + 1), null);
  assert.equal(takeWindow(2 ** 31 + 1, unit), null);
});

test("window refuses a mapping that exceeds it", () => {
  withFile(2, (fd) => {
    const window = takeWindow(PAGE)!;
    for (const [at, length] of [
      [PAGE, PAGE],
      [0, 2 * PAGE],
      [-PAGE, PAGE],
      [0, 0],
      [Number.NaN, PAGE],
    ]) {
      assert.throws(() => window.map(at, length, fd, 0), RangeError);
    }
    assert.throws(() => window.map(0, PAGE, fd, 5), { code: "EINVAL", call: "mmap" });
    giveWindow(window);
  });
});
