/**
 * A model of receiving from two rings while one set replaces another: the host ends its packets in
 * the old ring, publishes that, and goes on in the new ring. The guest must deliver them in order.
 * Every interleaving is tried, with loads that a CPU may satisfy early unless a barrier forbids it.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

type Ring = "old" | "new";

/** One store of the host: the ring's index, the number of packets published so far. */
interface Store {
  readonly ring: Ring;
  readonly index: number;
}

/** Returns all ways to publish `count` packets in batches. */
function batches(count: number): number[][] {
  if (count === 0) return [[]];
  const ways: number[][] = [];
  for (let first = 1; first <= count; first++) {
    for (const rest of batches(count - first)) ways.push([first, ...rest]);
  }
  return ways;
}

function publish(ring: Ring, sizes: readonly number[]): Store[] {
  let index = 0;
  return sizes.map((size) => {
    index += size;
    return { ring, index };
  });
}

/** Takes every sequence of choices, one after the other: a depth-first search by repetition. */
class Choices {
  readonly #taken: number[] = [];
  readonly #limits: number[] = [];
  #at = 0;

  /** Returns one of the numbers from `low` to `high`. */
  between(low: number, high: number): number {
    if (this.#at === this.#taken.length) {
      this.#taken.push(0);
      this.#limits.push(high - low);
    }
    return low + (this.#taken[this.#at++] as number);
  }

  /** Begins the next sequence. @returns false if there is none */
  next(): boolean {
    this.#at = 0;
    while (this.#taken.length > 0) {
      const last = this.#taken.length - 1;
      if ((this.#taken[last] as number) < (this.#limits[last] as number)) {
        this.#taken[last] = (this.#taken[last] as number) + 1;
        return true;
      }
      this.#taken.pop();
      this.#limits.pop();
    }
    return false;
  }
}

/**
 * The guest's view of the host's stores. A load happens at some time: after so many of them.
 * Without a barrier, a later load may happen before an earlier one, but never sees an older value
 * of the same ring.
 */
class View {
  readonly #stores: readonly Store[];
  readonly #choices: Choices;
  /** Number of stores that every load sees. */
  #floor = 0;
  /** Latest time of a load. */
  #latest = 0;
  readonly #seen: Record<Ring, number> = { old: 0, new: 0 };

  constructor(stores: readonly Store[], choices: Choices) {
    this.#stores = stores;
    this.#choices = choices;
  }

  load(ring: Ring): number {
    const time = this.#choices.between(this.#floor, this.#stores.length);
    this.#latest = Math.max(this.#latest, time);
    const stores = this.#stores.slice(0, time).filter((store) => store.ring === ring);
    this.#seen[ring] = Math.max(this.#seen[ring], stores.at(-1)?.index ?? 0);
    return this.#seen[ring];
  }

  /** No later load happens before an earlier one. */
  readBarrier(): void {
    this.#floor = this.#latest;
  }

  /** An interrupt comes after the host's last store. */
  interrupt(): void {
    this.#floor = this.#stores.length;
  }
}

interface Rules {
  /** The new ring's first packet waits until the old ring was looked at again. */
  readonly park: boolean;
  readonly barrier: boolean;
}

class Guest {
  readonly delivered: string[] = [];
  readonly #taken: Record<Ring, number> = { old: 0, new: 0 };
  readonly #view: View;
  readonly #rules: Rules;
  #flipped = false;

  constructor(view: View, rules: Rules) {
    this.#view = view;
    this.#rules = rules;
  }

  poll(): void {
    if (!this.#flipped) {
      this.#take("old");
      if (this.#view.load("new") === 0) return;
      this.#flip();
    }
    this.#take("new");
  }

  /** The new ring has work, so the old ring's index is final: but only once it is loaded anew. */
  #flip(): void {
    this.#flipped = true;
    this.#taken.new++;
    if (!this.#rules.park) {
      this.delivered.push("new 1");
      return;
    }
    if (this.#rules.barrier) this.#view.readBarrier();
    this.#take("old");
    this.delivered.push("new 1");
  }

  #take(ring: Ring): void {
    const index = this.#view.load(ring);
    while (this.#taken[ring] < index) this.delivered.push(`${ring} ${++this.#taken[ring]}`);
  }
}

/** Polls that may come at any time, before the one that the last interrupt causes. */
const POLLS = 2;
const PACKETS = 3;

const packets = (ring: Ring, count: number) =>
  Array.from({ length: count }, (_, n) => `${ring} ${n + 1}`);

/** Runs everything that can happen. @returns the number of runs, and of those out of order */
function tryAll(rules: Rules, order: (old: Store[], next: Store[]) => Store[]) {
  let runs = 0;
  let wrong = 0;
  for (let old = 0; old <= PACKETS; old++) {
    const expected = [...packets("old", old), ...packets("new", PACKETS - old)].join();
    for (const first of batches(old)) {
      for (const second of batches(PACKETS - old)) {
        const stores = order(publish("old", first), publish("new", second));
        const choices = new Choices();
        do {
          const view = new View(stores, choices);
          const guest = new Guest(view, rules);
          for (let n = 0; n < POLLS; n++) guest.poll();
          view.interrupt();
          guest.poll();
          runs++;
          if (guest.delivered.join() !== expected) wrong++;
        } while (choices.next());
      }
    }
  }
  return { runs, wrong };
}

const oldFirst = (old: Store[], next: Store[]) => [...old, ...next];

describe("poll of an old and a new ring", () => {
  test("delivers each packet once and in order when it parks the new ring's first packet", () => {
    const { runs, wrong } = tryAll({ park: true, barrier: true }, oldFirst);
    assert.ok(runs > 1000, `${runs} runs`);
    assert.equal(wrong, 0, `${wrong} of ${runs} runs out of order`);
  });

  test("loses or reorders packets when it does not look at the old ring again", () => {
    assert.ok(tryAll({ park: false, barrier: true }, oldFirst).wrong > 0);
  });

  test("loses packets when no barrier precedes the second look", () => {
    assert.ok(tryAll({ park: true, barrier: false }, oldFirst).wrong > 0);
  });

  test("loses packets when the host fills the new ring before it publishes the old one", () => {
    const newFirst = (old: Store[], next: Store[]) => [...next, ...old];
    assert.ok(tryAll({ park: true, barrier: true }, newFirst).wrong > 0);
  });
});
