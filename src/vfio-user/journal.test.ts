/**
 * A server that dies at every step of handling its client's messages, one after the other: the next
 * one goes on, and each message takes effect once and is answered once.
 */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { openFds } from "../../test/support/os.ts";
import { message, RawClient, u32s } from "../../test/support/vfio-user.ts";
import { ClaimedFds, SavedFds } from "../memory/record.ts";
import { createEventFd, drainEventFd, signalEventFd } from "../os/eventfd.ts";
import { close, duplicate } from "../os/fd.ts";
import { mapAnonymous } from "../os/memory.ts";
import { socketPair } from "../os/unix-socket.ts";
import { newCounters } from "./counters.ts";
import { MessageStream, type StreamRecord } from "./framing.ts";
import { JOURNAL_BYTES, MessageJournal } from "./journal.ts";
import { HEADER } from "./protocol.ts";
import { ReplyWriter } from "./replies.ts";

const ADD = 10;
const READ = 9;
const POSTED = 0x10;

class Killed extends Error {}

const { store } = Atomics;

afterEach(() => {
  Atomics.store = store;
});

/** Kills before the `at`-th store, or right after it. */
function killAt(at: number, isAfter: boolean): void {
  let stores = 0;
  Atomics.store = ((words: Int32Array, index: number, value: number) => {
    stores++;
    if (stores === at && !isAfter) throw new Killed();
    store(words, index, value);
    if (stores === at) throw new Killed();
    return value;
  }) as typeof Atomics.store;
}

/** What the keeper has. */
interface Saved {
  readonly sum: number;
  readonly stream: StreamRecord | null;
  readonly fds: readonly number[];
  readonly executed: number;
}

/** Adds numbers, and says their sum: what a server does besides, in the same order. */
class Server {
  sum: number;
  readonly #journal: MessageJournal;
  readonly #stream: MessageStream;
  readonly #replies: ReplyWriter;
  readonly #fd: number;

  constructor(memory: ReturnType<typeof mapAnonymous>, fd: number, saved: Saved, save: Save) {
    this.#fd = fd;
    this.sum = saved.sum;
    this.#journal = new MessageJournal(memory);
    this.#stream = new MessageStream(this.#journal);
    this.#replies = new ReplyWriter(newCounters(), 0, Number.POSITIVE_INFINITY, this.#journal);
    if (saved.stream !== null) {
      this.#stream.prepare("stream", saved.stream, new ClaimedFds(saved.fds.map(duplicate)))();
    }
    this.#journal.commit = (executed) => {
      const fds = new SavedFds();
      const stream = this.#stream.save(fds);
      save({ sum: this.sum, stream, fds: fds.fds.map(duplicate), executed });
    };
    assert.ok(this.#journal.recover(fd, saved.executed), "socket and journal fit");
  }

  /** Until nothing comes any more. */
  serve(): void {
    const stream = this.#stream;
    while (stream.receive(this.#fd) > 0) {
      while (stream.next()) this.#handle();
      stream.settle(this.#fd);
    }
  }

  #handle(): void {
    const { data, at } = this.#stream;
    const command = data.getUint16(at + HEADER.command, true);
    const changes = command === ADD;
    if (changes) this.sum += data.getUint32(at + HEADER.SIZE, true);
    for (const fd of this.#stream.takeFds()) {
      signalEventFd(fd);
      close(fd);
    }
    let size = 0;
    if ((data.getUint32(at + HEADER.flags, true) & POSTED) === 0) {
      this.#replies.data.setUint32(HEADER.SIZE, this.sum, true);
      size = this.#replies.build(data.getUint16(at + HEADER.id, true), command, 0, 4);
    }
    const { endInReceived, isContinued } = this.#stream;
    this.#journal.handled(endInReceived, size, changes || isContinued);
    if (size > 0) assert.ok(this.#replies.send(this.#fd, size));
  }

  close(): void {
    this.#stream.close();
    this.#replies.close();
  }
}

type Save = (saved: Saved) => void;

const add = (id: number, value: number, flags = 0) => message(ADD, u32s(value), { id, flags });
const read = (id: number) => message(READ, u32s(0), { id });

/** What arrives at once; a descriptor comes with the last byte. */
interface Part {
  readonly bytes: Buffer;
  readonly withFd?: true;
}

const MIXED = Buffer.concat([add(1, 5), add(2, 7, POSTED), read(3), add(4, 1), read(5)]);
const CASES: Readonly<Record<string, readonly Part[]>> = {
  "messages come at once": [{ bytes: MIXED }],
  "messages come in pieces": [
    { bytes: MIXED.subarray(0, 30) },
    { bytes: MIXED.subarray(30, 75) },
    { bytes: MIXED.subarray(75) },
  ],
  "a descriptor comes with a message": [
    { bytes: add(1, 5) },
    { bytes: add(2, 7, POSTED), withFd: true },
    { bytes: Buffer.concat([read(3), add(4, 1), read(5)]) },
  ],
  "a descriptor comes with the first half of a message": [
    { bytes: MIXED.subarray(0, 30), withFd: true },
    { bytes: MIXED.subarray(30) },
  ],
};

/** @returns false if the server was not killed any more */
function run(parts: readonly Part[], at: number, isAfter: boolean): boolean {
  const [near, far] = socketPair();
  const client = new RawClient(far);
  const eventFd = createEventFd();
  const memory = mapAnonymous(JOURNAL_BYTES);
  let saved: Saved = { sum: 0, stream: null, fds: [], executed: 0 };
  const save = (next: Saved): void => {
    for (const fd of saved.fds) close(fd);
    saved = next;
  };
  const dead: Server[] = [];
  let server = new Server(memory, near, saved, save);
  let isKilled = false;
  const live = (step: () => void): void => {
    try {
      step();
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
      Atomics.store = store;
      isKilled = true;
      dead.push(server);
      server = new Server(memory, near, saved, save);
      server.serve();
    }
  };
  killAt(at, isAfter);
  for (const { bytes, withFd } of parts) {
    client.send(bytes, withFd ? [eventFd] : []);
    live(() => server.serve());
  }
  Atomics.store = store;
  const { answers, ended } = client.answers();
  const where = `store ${at}${isAfter ? ", after it" : ""}`;
  assert.ok(!ended);
  assert.deepEqual(
    answers.map(({ id, payload }) => [id, payload.readUInt32LE(0)]),
    [...[1, 3, 4, 5].map((id) => [id, id === 1 ? 5 : id === 3 ? 12 : 13])],
    where,
  );
  assert.equal(server.sum, 13, where);
  if (parts.some(({ withFd }) => withFd)) assert.ok(drainEventFd(eventFd) > 0, where);
  for (const each of [...dead, server]) each.close();
  for (const fd of [...saved.fds, near, far, eventFd]) close(fd);
  memory.unmap();
  return isKilled;
}

for (const [what, parts] of Object.entries(CASES)) {
  test(`each message takes effect and is answered once when the server dies and ${what}`, () => {
    const before = openFds();
    for (const isAfter of [false, true]) {
      let at = 1;
      while (run(parts, at, isAfter)) at++;
      assert.ok(at > 20, `${at} steps`);
    }
    assert.equal(openFds(), before);
  });
}
