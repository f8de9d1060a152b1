/** Reading bytes at host addresses through views of windows. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { close } from "../os/fd.ts";
import {
  createFileMemfd,
  mapFileOver,
  PAGE,
  reserveAddresses,
  uncover,
  viewsMade,
} from "../os/memory.ts";
import { HostBytes } from "./host-bytes.ts";

const WINDOW = 2 ** 30;
/** Windows with the same slot are so far apart. */
const SAME_SLOT = 64 * WINDOW;

/** A file of two pages, each byte with a value of its own place. */
function makeFile(seed: number): number {
  return createFileMemfd(
    "bytes",
    Uint8Array.from({ length: 2 * PAGE }, (_, i) => i * seed),
  );
}

function read(address: number, length: number): number[] {
  const found = new HostBytes();
  found.find(address, length);
  return [...found.bytes.subarray(found.at, found.at + length)];
}

const expected = (seed: number, from: number, length: number): number[] =>
  Array.from({ length }, (_, i) => ((from + i) * seed) & 0xff);

test("bytes are those of the address when it lies in a window, at its end, or across two", () => {
  const file = makeFile(7);
  const reserved = reserveAddresses(3 * WINDOW);
  const edge = Math.ceil(reserved / WINDOW + 1) * WINDOW;
  mapFileOver(edge - PAGE, 2 * PAGE, file, 0);
  for (const at of [0, 5, PAGE - 6, PAGE - 5, PAGE - 1, PAGE, PAGE + 9]) {
    assert.deepEqual(read(edge - PAGE + at, 6), expected(7, at, 6), `at ${at}`);
  }
  uncover(edge - PAGE, 2 * PAGE);
  const other = makeFile(11);
  mapFileOver(edge - PAGE, 2 * PAGE, other, 0);
  assert.deepEqual(read(edge, 6), expected(11, PAGE, 6), "after other memory was mapped there");
  close(file);
  close(other);
});

test("bytes are right, and views limited, when windows take turns in a slot", () => {
  const file = makeFile(13);
  const reserved = reserveAddresses(SAME_SLOT + WINDOW);
  const places = [reserved, reserved + SAME_SLOT];
  for (const [i, place] of places.entries()) mapFileOver(place, PAGE, file, i * PAGE);
  const before = viewsMade();
  for (let n = 0; n < 400; n++) {
    const i = n % 2;
    assert.deepEqual(read(places[i] + n, 4), expected(13, i * PAGE + n, 4));
  }
  assert.ok(viewsMade() - before <= 256, `${viewsMade() - before} views`);
  close(file);
});
