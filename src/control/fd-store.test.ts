/** What a service may send to its keeper. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openFds } from "../../test/support/os.ts";
import { createEventFd } from "../os/eventfd.ts";
import { FdStore, MAX_STORED } from "./fd-store.ts";

test("store keeps one descriptor of each name, and closes what it replaces or removes", () => {
  const before = openFds();
  const store = new FdStore(assert.fail);
  store.take("FDSTORE=1\nFDNAME=a\nFDPOLL=0", [createEventFd()]);
  store.take("FDSTORE=1\nFDNAME=b", [createEventFd()]);
  const other = createEventFd();
  store.take("FDSTORE=1\nFDNAME=a", [other]);
  assert.deepEqual([...store.stored.keys()], ["b", "a"]);
  assert.equal(store.stored.get("a"), other);
  store.take("FDSTOREREMOVE=1\nFDNAME=b", []);
  store.take("FDSTOREREMOVE=1\nFDNAME=none", []);
  assert.equal(openFds(), before + 1);
  assert.deepEqual(store.take("READY=1\nSTATUS=x", []), { ready: true });
  store.close();
  assert.equal(openFds(), before);
});

/** Text, and how many descriptors come with it. */
const REFUSED: Readonly<Record<string, readonly [string, number]>> = {
  "a name with a colon": ["FDSTORE=1\nFDNAME=a:b", 1],
  "an empty name": ["FDSTORE=1\nFDNAME=", 1],
  "a name that is too long": [`FDSTORE=1\nFDNAME=${"x".repeat(256)}`, 1],
  "a name with a byte beyond ASCII": ["FDSTORE=1\nFDNAME=\u00ff", 1],
  "two descriptors of one name": ["FDSTORE=1\nFDNAME=a", 2],
  "descriptors that are not to be stored": ["READY=1", 3],
  "bytes without an assignment": ["\0\u0001=\n\n==", 1],
};

for (const [what, [text, count]] of Object.entries(REFUSED)) {
  test(`store refuses ${what}, says so, and leaks nothing`, () => {
    const before = openFds();
    const said: string[] = [];
    const store = new FdStore((text) => said.push(text));
    store.take(text, Array.from({ length: count }, createEventFd));
    assert.equal(store.size, 0);
    assert.equal(said.length, 1);
    assert.equal(openFds(), before);
  });
}

test("store has room for a bounded number of descriptors", () => {
  const said: string[] = [];
  const store = new FdStore((text) => said.push(text));
  // Numbers that are not open: only counting matters.
  const fd = 1_000_000;
  for (let n = 0; n <= MAX_STORED; n++) store.take(`FDSTORE=1\nFDNAME=n${n}`, [fd + n]);
  assert.equal(store.size, MAX_STORED);
  assert.match(said.join(), /more than 4096 descriptors/);
});
