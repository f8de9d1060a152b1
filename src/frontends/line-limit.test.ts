import assert from "node:assert/strict";
import { test } from "node:test";
import { LineLimit } from "./line-limit.ts";

function limited(perSecond: number) {
  const lines: string[] = [];
  const limit = new LineLimit<string>(
    perSecond,
    (line) => lines.push(line),
    (suppressed) => `suppressed ${suppressed}`,
    0,
  );
  return { lines, limit };
}

test("so many lines a second, then one that counts the rest", () => {
  const { lines, limit } = limited(3);
  for (let n = 0; n < 100; n++) limit.line(`line ${n}`, 10 + n);
  assert.deepEqual(lines, ["line 0", "line 1", "line 2"]);
  limit.tick(1000);
  assert.deepEqual(lines.slice(3), ["suppressed 97"]);
  for (let n = 0; n < 5; n++) limit.line(`next ${n}`, 1001);
  limit.line("later", 2001);
  assert.deepEqual(lines.slice(4), ["next 0", "next 1", "next 2", "suppressed 2", "later"]);
});

test("where nothing was left out, nothing is said of it", () => {
  const { lines, limit } = limited(3);
  for (let second = 0; second < 10; second++) {
    limit.line("one", second * 1000);
    limit.tick(second * 1000 + 500);
  }
  assert.deepEqual(new Set(lines), new Set(["one"]));
});
