/**
 * One line of log for each kind of refusal and loss. The counters know them all, and cost nothing
 * while nothing is wrong; here each is logged when it begins, and while it continues at most once a
 * minute, with its count.
 */

import type { QueuePair } from "../engine/pair.ts";
import type { Queue } from "../engine/queue.ts";
import { QUEUE_COUNTERS } from "../memory/counters.ts";

const AGAIN_MS = 60_000;
/** Between looks: a loop that has much to do comes by more often. */
const LOOK_MS = 500;

export interface Complaint {
  /**
   * For people, without the number: "rx0: descriptors whose memory
   * is not the guest's (dropBadAddress)".
   */
  readonly text: string;
  readonly count: () => number;
  /** The current case, or what to do; "": nothing to add. */
  readonly detail?: () => string;
}

interface Watched extends Complaint {
  seen: number;
  told: number;
}

export class Complaints {
  readonly #watched: Watched[];
  readonly #say: (text: string) => void;
  #lookedAt = Number.NEGATIVE_INFINITY;

  constructor(complaints: readonly Complaint[], say: (text: string) => void) {
    this.#watched = complaints.map((complaint) => ({
      ...{ ...complaint, seen: complaint.count(), told: Number.NEGATIVE_INFINITY },
    }));
    this.#say = say;
  }

  /** To be called about once a second. */
  tick(now = performance.now()): void {
    if (now - this.#lookedAt < LOOK_MS) return;
    this.#lookedAt = now;
    for (const watched of this.#watched) {
      const count = watched.count();
      if (count === watched.seen || now - watched.told < AGAIN_MS) continue;
      const detail = watched.detail?.() ?? "";
      this.#say(`${count - watched.seen} ${watched.text}${detail === "" ? "" : `; ${detail}`}`);
      watched.seen = count;
      watched.told = now;
    }
  }
}

/**
 * Counters by their names in an object of counters, with descriptions. @param detail of a counter
 */
export function counted<Name extends string>(
  counters: Readonly<Record<Name, number>>,
  texts: Readonly<Partial<Record<Name, string>>>,
  detail: (name: Name) => string = () => "",
): Complaint[] {
  return (Object.keys(texts) as Name[]).map((name) => ({
    text: `${texts[name]} (${name})`,
    count: () => counters[name],
    detail: () => detail(name),
  }));
}

/** Some of an object's entries. */
export function pick<Name extends string, Chosen extends Name>(
  all: Readonly<Record<Name, string>>,
  names: readonly Chosen[],
): Record<Chosen, string> {
  return Object.fromEntries(names.map((name) => [name, all[name]])) as Record<Chosen, string>;
}

/** Everything that queues drop. @param detail of a counter, by its name */
export function droppedIn(
  pairs: readonly QueuePair[],
  detail: (name: string) => string = () => "",
): Complaint[] {
  return pairs.flatMap(({ rx, tx }) => [
    ...queueComplaints(rx, detail),
    ...queueComplaints(tx, detail),
  ]);
}

function queueComplaints(
  { name: queue, counters }: Queue,
  detail: (name: string) => string,
): Complaint[] {
  return QUEUE_COUNTERS.flatMap(([name, text], slot) =>
    name.startsWith("drop") || name === "ringErrors"
      ? [
          {
            text: `${text} in ${queue} (${name})`,
            count: () => counters[slot],
            detail: () => detail(name),
          },
        ]
      : [],
  );
}

/**
 * Guest memory that the VMM does not share is the usual reason for addresses that do not translate.
 */
export function unsharedMemory(
  ranges: readonly { readonly address: number; readonly size: number; readonly file: unknown }[],
): string {
  const unshared = ranges.filter(({ file, size }) => file === null && size >= SMALLEST_RAM);
  if (unshared.length === 0) return "";
  const list = unshared.slice(0, 3).map(({ address, size }) => {
    return `${Math.round(size / 2 ** 20)} MiB at 0x${address.toString(16)}`;
  });
  return `the VMM does not share ${list.join(", ")}: give every memory backend share=on`;
}

/** ROMs and other devices' registers come without a file, too, and are smaller. */
const SMALLEST_RAM = 16 * 2 ** 20;
