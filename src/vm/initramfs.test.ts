import assert from "node:assert/strict";
import { test } from "node:test";
import { packInitramfs } from "./initramfs.ts";

/**
 * Parses the archive by the format's rules: hexadecimal
 * fields of eight digits, padded to four bytes.
 */
function unpack(image: Buffer): Map<string, { mode: number; content: string }> {
  const files = new Map<string, { mode: number; content: string }>();
  for (let at = 0; at < image.length; ) {
    const field = (index: number) =>
      Number.parseInt(image.toString("latin1", at + 6 + 8 * index, at + 14 + 8 * index), 16);
    assert.equal(image.toString("latin1", at, at + 6), "070701");
    const name = image.toString("utf8", at + 110, at + 110 + field(11) - 1);
    const start = (at + 110 + field(11) + 3) & ~3;
    files.set(name, { mode: field(1), content: image.toString("utf8", start, start + field(6)) });
    at = (start + field(6) + 3) & ~3;
  }
  return files;
}

test("archive holds the files, their parent folders first, and a trailer", () => {
  const image = packInitramfs([
    { path: "/extra/start", content: Buffer.from("#!/bin/sh\n"), executable: true },
    { path: "/extra/data/x", content: Buffer.from("12345") },
  ]);
  const files = unpack(image);
  assert.deepEqual(
    [...files.keys()],
    ["extra", "extra/data", "extra/start", "extra/data/x", "TRAILER!!!"],
  );
  assert.equal(files.get("extra/start")?.mode, 0o100755);
  assert.deepEqual(files.get("extra/data/x"), { mode: 0o100644, content: "12345" });
  assert.equal(image.length % 4, 0);
});
