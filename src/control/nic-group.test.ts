import assert from "node:assert/strict";
import { test } from "node:test";
import { NicFailed } from "./handle.ts";
import { type GroupedNic, NicGroup } from "./nic-group.ts";

/** Ends when it is told to. */
class FakeNic implements GroupedNic {
  readonly name: string;
  readonly ended: Promise<void>;
  stops = 0;
  end!: () => void;
  fail!: (error: Error) => void;

  constructor(name: string) {
    this.name = name;
    this.ended = new Promise((resolve, reject) => {
      this.end = resolve;
      this.fail = reject;
    });
    this.ended.catch(() => {});
  }

  async stop(): Promise<void> {
    this.stops++;
    this.end();
    await this.ended;
  }
}

function group(count: number) {
  const nics = Array.from({ length: count }, (_, n) => new FakeNic(`nic${n}`));
  const failed: string[] = [];
  const told = (nic: FakeNic, { message }: Error) => failed.push(`${nic.name}: ${message}`);
  return { nics, failed, group: new NicGroup(nics, told) };
}

const names = (nics: readonly FakeNic[]): string[] => nics.map(({ name }) => name);

test("a group goes on with the other NICs when a step of one fails", async () => {
  const { nics, failed, group: all } = group(3);
  await all.each(async ({ name }) => {
    if (name === "nic1") throw new Error("no such TAP");
  });
  assert.deepEqual(failed, ["nic1: no such TAP"]);
  assert.deepEqual(names(all.running), ["nic0", "nic2"]);
  assert.deepEqual(
    nics.map(({ stops }) => stops),
    [0, 1, 0],
  );
  const second: string[] = [];
  await all.each(async ({ name }) => void second.push(name));
  assert.deepEqual(second, ["nic0", "nic2"]);
});

test("a group reports a NIC that fails while it runs, and ends when the last one has", async () => {
  const { nics, failed, group: all } = group(3);
  nics[0].fail(new Error("out of memory"));
  await assert.rejects(nics[0].ended);
  assert.deepEqual(failed, ["nic0: out of memory"]);
  let isOver = false;
  void all.ended.catch(() => {
    isOver = true;
  });
  nics[1].end();
  await nics[1].ended;
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isOver, false);
  await all.stop();
  await assert.rejects(all.ended, new NicFailed("1 of 3 NICs failed (nic0: out of memory)", true));
  assert.deepEqual(failed.length, 1);
});

test("a group of one NIC fails with that NIC's own error", async () => {
  const { nics, group: one } = group(1);
  const error = new Error("the very one");
  nics[0].fail(error);
  await assert.rejects(one.ended, (thrown) => thrown === error);
});

test("a group that is stopped ends in order, and waits for no step", async () => {
  const { failed, group: all } = group(2);
  const stepping = all.each(() => new Promise(() => {}));
  await all.stop();
  await stepping;
  await all.ended;
  assert.deepEqual([failed, names(all.running)], [[], []]);
});
