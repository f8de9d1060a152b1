import assert from "node:assert/strict";
import { test } from "node:test";
import { LineLimit } from "./line-limit.ts";

function limited(perSecond: number) {
  const lines: string[] = [];
  const limit = new LineLimit<string>(
    perSecond,
    (line) => lines.push(line),
    (suppressed, last) => `suppressed ${suppressed}, the last: ${last}`,
    0,
  );
  return { lines, limit };
}

test("LineLimit passes so many lines a second, then counts the rest and repeats the last", () => {
  const { lines, limit } = limited(3);
  for (let n = 0; n < 100; n++) limit.line(`line ${n}`, 10 + n);
  assert.deepEqual(lines, ["line 0", "line 1", "line 2"]);
  limit.tick(1000);
  assert.deepEqual(lines.slice(3), ["suppressed 97, the last: line 99"]);
  for (let n = 0; n < 5; n++) limit.line(`next ${n}`, 1001);
  limit.line("later", 2001);
  const last = "suppressed 2, the last: next 4";
  assert.deepEqual(lines.slice(4), ["next 0", "next 1", "next 2", last, "later"]);
});

test("LineLimit reports nothing when no line was left out", () => {
  const { lines, limit } = limited(3);
  for (let second = 0; second < 10; second++) {
    limit.line("one", second * 1000);
    limit.tick(second * 1000 + 500);
  }
  assert.deepEqual(new Set(lines), new Set(["one"]));
});
