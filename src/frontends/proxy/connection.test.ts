import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { frameOf } from "../../../test/support/guest.ts";
import { dup, openFds } from "../../../test/support/os.ts";
import { message, ProxyBench, type RawReply, table, words } from "../../../test/support/proxy.ts";
import { PROGRAM_IDS } from "../../abi/index.ts";
import type { RingFormat } from "../../devices/format.ts";
import { programsOf } from "../../devices/program-set.ts";
import { sring } from "../../devices/sring/host.ts";
import { sringGso } from "../../devices/sring_gso/host.ts";
import { assembleText } from "../../ebpf/text.ts";
import { INTERRUPTS, PACKETS } from "../../memory/counters.ts";
import { drainEventFd } from "../../os/eventfd.ts";
import { close } from "../../os/fd.ts";
import { createMemfd, PAGE } from "../../os/memory.ts";

/** Runs with a bench, and sees to it that no descriptor is left. */
function withBench(action: (bench: ProxyBench) => void, make = () => new ProxyBench()): void {
  const before = openFds();
  const bench = make();
  try {
    action(bench);
  } finally {
    bench.close();
  }
  assert.equal(openFds(), before, "descriptors");
}

function done(
  reply: RawReply | "closed" | null,
  type: number,
  payload: Uint8Array = new Uint8Array(0),
): void {
  assert.ok(reply !== null && reply !== "closed", "a reply");
  assert.deepEqual([reply.type, reply.flags], [type, 1]);
  assert.deepEqual(reply.payload, payload);
}

function refused(reply: RawReply | "closed" | null, type: number): void {
  assert.ok(reply !== null && reply !== "closed", "a reply");
  assert.deepEqual([reply.type, reply.flags], [type, 9], "an error reply");
  assert.deepEqual([reply.payload.length, reply.fds.length], [0, 0]);
}

/** Sizes from the protocol's table, by number. */
const SIZES: Record<number, number> = {
  ...{ 1: 0, 2: 8, 3: 16, 4: 0, 5: 264, 6: 16, 7: 4, 8: 4, 9: 4, 10: 0, 11: 0, 12: 0, 13: 0 },
};

describe("framing", () => {
  for (const [type, size] of Object.entries(SIZES).map(([t, s]) => [Number(t), s])) {
    test(`request ${type}: a payload that is not ${size} bytes gets an error reply`, () => {
      withBench((bench) => {
        const others = [0, 1, 3, 4, 5, 8, 12, 15, 16, 17, 263, 264].filter((n) => n !== size);
        for (const n of others) refused(bench.ask(type, new Uint8Array(n)), type);
        assert.equal(bench.frontend.backend.counters.refused, others.length);
        assert.equal(bench.frontend.connected, true);
      });
    });

    test(`request ${type} in another protocol version gets an error reply`, () => {
      withBench((bench) => {
        for (const version of [0, 2, 7]) {
          bench.send(message(type, new Uint8Array(size), version));
          refused(bench.reply(), type);
        }
        assert.match(bench.frontend.backend.lastRefusal, /version 7/);
      });
    });
  }

  test("a request that nobody knows gets an error reply, and the next one is understood", () => {
    withBench((bench) => {
      for (const type of [0, 14, 0xffffffff]) refused(bench.ask(type, words(1, 2)), type);
      done(bench.ask(1), 1, new Uint8Array(8));
    });
  });

  test("a size that no message has ends the connection: the next message cannot be found", () => {
    for (const size of [265, 4096, 0xffffffff]) {
      withBench((bench) => {
        bench.send(words(1, 1, size));
        assert.equal(bench.reply(), "closed");
        assert.match(bench.problem ?? "", /payload/);
      });
    }
  });

  test("messages may come in pieces of any length, and several at once", () => {
    withBench((bench) => {
      const bytes = message(3, words(1, 1, 64, 32));
      for (const byte of bytes.slice(0, -1)) {
        bench.send(Uint8Array.of(byte));
        assert.equal(bench.reply(), null);
      }
      bench.send(bytes.slice(-1));
      done(bench.reply(), 3, words(2096 + 512 + 24 * 64, 2096 + 512 + 24 * 32));
      bench.send(Uint8Array.from([...message(1), ...message(12), ...message(1)]));
      for (const type of [1, 12, 1]) done(bench.reply(), type, new Uint8Array(type === 1 ? 8 : 0));
    });
  });

  test("descriptors are the message's that they came with, wherever in it they came", () => {
    withBench((bench) => {
      done(bench.ask(3, words(1, 1, 16, 16)), 3, words(2992, 2992));
      const bytes = message(7, words(0));
      bench.send(bytes.slice(0, 5));
      bench.send(bytes.slice(5, 13), [bench.newEventFd()]);
      bench.send(Uint8Array.from([...bytes.slice(13), ...message(7, words(1))]));
      done(bench.reply(), 7);
      done(bench.reply(), 7);
      const [rx, tx] = bench.frontend.backend.queues;
      assert.ok(rx.kickFd >= 0);
      assert.equal(tx.kickFd, -1);
    });
  });

  test("more descriptors than a message has: closed, and an error reply", () => {
    withBench((bench) => {
      for (const n of [9, 30, 200]) {
        refused(bench.ask(1, undefined, Array<number>(n).fill(bench.memfd)), 1);
      }
      done(bench.ask(1), 1, new Uint8Array(8));
    });
  });

  test("descriptors of a message that takes none are closed, and the request is done", () => {
    withBench((bench) => {
      const open = openFds();
      done(bench.ask(1, undefined, [bench.memfd, bench.memfd]), 1, new Uint8Array(8));
      assert.equal(openFds(), open);
    });
  });

  test("a peer that does not read its replies is disconnected, not waited for", () => {
    withBench((bench) => {
      for (let n = 0; n < 4000 && bench.problem === null; n++) {
        try {
          bench.send(message(1));
        } catch {
          break;
        }
      }
      assert.match(bench.problem ?? "", /does not read/);
    });
  });

  test("the end of the stream in the middle of a message is an end", () => {
    withBench((bench) => {
      bench.send(message(3, words(1, 1, 16, 16)).slice(0, 20));
      bench.connect();
      bench.turn();
      done(bench.ask(1), 1, new Uint8Array(8));
    });
  });
});

describe("requests", () => {
  test("features are those both offered and requested, also while packets flow", () => {
    withBench((bench) => {
      done(bench.ask(1), 1, new Uint8Array(8));
      done(bench.ask(2, words(0xffffffff, 0xffffffff)), 2);
      assert.equal(bench.frontend.backend.selectedFeatures, 0, "sring has none");
      bench.configure();
      done(bench.ask(10), 10);
      done(bench.ask(2, words(0, 0)), 2);
      assert.notEqual(bench.pair.rx.ring, null, "it goes on");
    });
  });

  test("what the guest may receive follows features that change while packets flow", () => {
    withBench(
      (bench) => {
        bench.configure();
        for (const type of [10, 11]) done(bench.ask(type), type);
        const seen: number[] = [];
        bench.port.setReceiveOffloads = (offloads) => seen.push(offloads);
        done(bench.ask(2, words(0x1ff, 0)), 2);
        done(bench.ask(2, words(0x001, 0)), 2);
        assert.ok(seen.length === 2 && seen[0] !== 0 && seen[1] === 0, `offloads ${seen}`);
        assert.equal(bench.frontend.backend.counters.impliedStops, 0);
      },
      () => new ProxyBench(sringGso),
    );
  });

  test("parameters: one queue pair, powers of two from 16 to 8192", () => {
    withBench((bench) => {
      const wrong = [
        [0, 1, 16, 16],
        [1, 2, 16, 16],
        [1, 1, 8, 16],
        [1, 1, 16, 24],
        [1, 1, 16384, 16],
        [1, 1, 0, 0],
        [1, 1, 0x80000000, 16],
      ];
      for (const parameters of wrong) refused(bench.ask(3, words(...parameters)), 3);
      refused(bench.ask(7, words(0)), 7);
      refused(bench.ask(4), 4);
      done(bench.ask(3, words(1, 1, 16, 8192)), 3, words(2992, 2096 + 512 + 24 * 8192));
    });
  });

  test("changed parameters take contexts of the old size away", () => {
    withBench((bench) => {
      bench.configure();
      done(bench.ask(3, words(1, 1, 16, 16)), 3, words(2992, 2992));
      assert.ok(bench.frontend.backend.queues.every(({ queue }) => queue.registered));
      done(bench.ask(3, words(1, 1, 16, 32)), 3, words(2992, 3376));
      assert.ok(bench.frontend.backend.queues.every(({ queue }) => !queue.registered));
      refused(bench.ask(10), 10);
      assert.match(bench.frontend.backend.lastRefusal, /no context/);
    });
  });

  test("memory tables: as many descriptors as regions, inside of their files, never overlapping", () => {
    withBench((bench) => {
      const two = table([0, 8 * PAGE, 0], [16 * PAGE, PAGE, 9 * PAGE]);
      done(bench.ask(5, two, [bench.memfd, bench.memfd]), 5);
      const { memory } = bench.frontend.backend;
      const host = memory.translate(16 * PAGE, PAGE, true);
      const wrong: [Uint8Array, number][] = [
        [two, 1],
        [two, 3],
        [table([0, PAGE, 0]), 0],
        [table([0, 2 ** 21, 0]), 1],
        [table([0, PAGE, 2 ** 20]), 1],
        [table([2 ** 53, PAGE, 0]), 1],
        [table([0, 2 ** 63, 0]), 1],
        [table([0, PAGE, 2 ** 63]), 1],
        [table([0, 0, 0]), 1],
        [table([0, 2 * PAGE, 0], [PAGE, PAGE, 0]), 2],
        [Uint8Array.from([...words(9), ...new Uint8Array(260)]), 8],
      ];
      for (const [payload, fds] of wrong) {
        refused(bench.ask(5, payload, Array<number>(fds).fill(bench.memfd)), 5);
        assert.equal(memory.translate(16 * PAGE, PAGE, true), host, "the old table stands");
      }
      refused(bench.ask(5, table([0, PAGE, 0]), [bench.newEventFd()]), 5);
      done(bench.ask(5, table()), 5);
      assert.equal(memory.translate(0, 1, false), 0);
      assert.equal(memory.files.length, 0, "unmapped");
    });
  });

  test("memory that can be shrunk under us is sealed, or warned of", () => {
    withBench((bench) => {
      const fd = createMemfd("growing", PAGE);
      done(bench.ask(5, table([0, PAGE, 0]), [fd]), 5);
      close(fd);
      assert.deepEqual(bench.warnings, [], "sealed");
    });
  });

  test("a context is all memory or refused; address 0 forgets it", () => {
    withBench((bench) => {
      bench.configure();
      const high = 2 ** 32 - 1;
      // Beyond the memory by a byte, wrapping at 2^64, far out, not aligned, no such queue.
      const wrong = [
        [0, 0, 2 ** 20 - 2976, 0],
        [0, 0, 0xfffff000, high],
        [0, 0, 0, 1],
        [0, 0, 0x10001, 0],
        [2, 0, 0x10000, 0],
        [high, 0, 0x10000, 0],
      ];
      for (const payload of wrong) refused(bench.ask(6, words(...payload)), 6);
      done(bench.ask(6, words(0, 0, 2 ** 20 - 2992, 0)), 6);
      done(bench.ask(6, words(0, 0, 0, 0)), 6);
      refused(bench.ask(10), 10);
      // Initialised on registration: qmask, kick request, interrupt
      // setting, at the offsets of the original.
      for (let at = 0; at < 2992; at += 4) bench.view.setUint32(0x10000 + at, 0xaaaaaaaa, true);
      done(bench.ask(6, words(0, 0, 0x10000, 0)), 6);
      const word = (at: number) => bench.view.getUint32(0x10000 + at, true);
      assert.equal(word(2092), 0xaaaaaaaa, "the public part is left alone");
      assert.deepEqual([2096, 2100, 2224, 2228, 2352, 2480].map(word), [0, 1, 0, 1, 15, 0]);
    });
  });

  test("enabling needs everything; what is missing is said", () => {
    withBench((bench) => {
      refused(bench.ask(10), 10);
      bench.configure();
      for (const [type, queue] of [
        [7, 1],
        [8, 0],
      ]) {
        done(bench.ask(type, words(queue)), type);
        refused(bench.ask(11), 11);
        done(bench.ask(type, words(queue), [bench.newEventFd()]), type);
      }
      done(bench.ask(5, table()), 5);
      refused(bench.ask(10), 10);
      assert.match(bench.frontend.backend.lastRefusal, /no memory table/);
    });
  });

  test("disabling what was never enabled is done, too", () => {
    withBench((bench) => {
      for (const type of [12, 13]) done(bench.ask(type), type);
    });
  });

  test("each direction is enabled and disabled by itself", () => {
    withBench((bench) => {
      bench.configure();
      done(bench.ask(10), 10);
      assert.ok(bench.pair.rx.ring !== null && bench.pair.tx.ring === null);
      done(bench.ask(11), 11);
      done(bench.ask(12), 12);
      assert.ok(bench.pair.rx.ring === null && bench.pair.tx.ring !== null);
      done(bench.ask(13), 13);
      assert.ok(bench.pair.rx.ring === null && bench.pair.tx.ring === null);
    });
  });

  /** Each is what the driver of a guest may say that was reset without a word. */
  const OF_ANOTHER_GUEST: readonly (readonly [string, number, Uint8Array])[] = [
    ["a context taken away", 6, words(0, 0, 0, 0)],
    ["another context", 6, words(1, 0, 0x30000, 0)],
    ["the same parameters", 3, words(1, 1, 16, 16)],
    ["other parameters", 3, words(1, 1, 32, 32)],
  ];
  for (const [what, type, payload] of OF_ANOTHER_GUEST) {
    test(`both directions stop undrained when packets flow and ${what} comes`, () => {
      withBench((bench) => {
        bench.configure();
        for (const direction of [10, 11]) done(bench.ask(direction), direction);
        publish(bench, 0, frameOf(1));
        const reply = bench.ask(type, payload);
        assert.ok(reply !== null && reply !== "closed" && reply.flags === 1, "it is done");
        const { backend } = bench.frontend;
        assert.ok(bench.pair.rx.ring === null && bench.pair.tx.ring === null && !backend.running);
        assert.deepEqual(bench.port.sent, []);
        assert.equal(backend.counters.impliedStops, 1);
        assert.match(bench.warnings.join(), /the machine was reset/);
        refused(bench.ask(10), 10);
        // Its own contexts, and it runs.
        for (const queue of [0, 1]) {
          done(bench.ask(6, words(queue, 0, 0x50000 + 0x10000 * queue, 0)), 6);
        }
        for (const direction of [10, 11]) done(bench.ask(direction), direction);
        assert.equal(backend.counters.impliedStops, 1);
      });
    });
  }

  test("packets keep flowing when the request that would stop them is invalid", () => {
    withBench((bench) => {
      bench.configure();
      for (const direction of [10, 11]) done(bench.ask(direction), direction);
      refused(bench.ask(6, words(0, 0, 0xfff0_0000, 0)), 6);
      refused(bench.ask(6, words(7, 0, 0, 0)), 6);
      refused(bench.ask(3, words(1, 1, 17, 16)), 3);
      assert.ok(bench.pair.rx.ring !== null && bench.pair.tx.ring !== null);
      assert.equal(bench.frontend.backend.counters.impliedStops, 0);
    });
  });

  test("while packets flow: kicks stay, interrupts and upgrade descriptors may change", () => {
    withBench((bench) => {
      bench.configure();
      done(bench.ask(10), 10);
      refused(bench.ask(7, words(0), [bench.newEventFd()]), 7);
      done(bench.ask(8, words(0), [bench.newEventFd()]), 8);
      done(bench.ask(9, words(0), [bench.newEventFd()]), 9);
      done(bench.ask(1), 1, new Uint8Array(8));
    });
  });

  test("notifiers: wrong queues and numbers of descriptors are refused, and change nothing", () => {
    withBench((bench) => {
      bench.configure();
      const before = bench.frontend.backend.queues.map(({ kickFd, irqFd }) => [kickFd, irqFd]);
      const event = bench.newEventFd();
      for (const type of [7, 8]) {
        refused(bench.ask(type, words(2), [event]), type);
        refused(bench.ask(type, words(0), [event, event]), type);
      }
      refused(bench.ask(9, words(0)), 9);
      refused(bench.ask(9, words(0), [event, event]), 9);
      // A file cannot be waited for.
      refused(bench.ask(7, words(0), [bench.memfd]), 7);
      const after = bench.frontend.backend.queues.map(({ kickFd, irqFd }) => [kickFd, irqFd]);
      assert.deepEqual(after, before);
    });
  });

  test("programs come as an ELF object in a descriptor of its own", () => {
    withBench((bench) => {
      bench.configure();
      const reply = bench.ask(4);
      assert.ok(reply !== null && reply !== "closed");
      assert.deepEqual([reply.flags, reply.payload.length, reply.fds.length], [1, 0, 1]);
      close(reply.fds[0]);
    });
  });
});

/** Publishes a frame of number `n` in the transmit ring at 0x20000, as a program would. */
function publish(bench: ProxyBench, index: number, frame: Uint8Array, address = 0x40000): void {
  const slot = 0x20000 + 2608 + (index & 15) * 24;
  new Uint8Array(bench.view.buffer).set(frame, address);
  bench.view.setBigUint64(slot + 8, BigInt(address), true);
  bench.view.setUint32(slot + 16, frame.length, true);
  bench.view.setUint32(0x20000 + 2096, index + 1, true);
}

describe("packets", () => {
  test("what is published when transmission stops goes out, and what does not is counted", () => {
    withBench((bench) => {
      bench.configure();
      for (const type of [10, 11]) done(bench.ask(type), type);
      for (let n = 0; n < 5; n++) publish(bench, n, frameOf(1), 0x40000 + n * 4096);
      bench.port.room = 3;
      done(bench.ask(12), 12);
      done(bench.ask(13), 13);
      assert.equal(bench.port.sent.length, 3);
      assert.equal(bench.frontend.backend.counters.unsentAtStop, 2);
      assert.equal(bench.view.getUint32(0x20000 + 2224, true), 3, "cons: the guest reclaims two");
    });
  });

  test("the end of the connection drains, too, and forgets everything", () => {
    withBench((bench) => {
      bench.configure();
      for (const type of [10, 11]) done(bench.ask(type), type);
      publish(bench, 0, frameOf(7));
      bench.connect();
      bench.turn();
      assert.deepEqual(bench.port.sent, [frameOf(7)]);
      const { backend } = bench.frontend;
      assert.equal(backend.parameters, null);
      assert.equal(backend.memory.files.length, 0);
      assert.ok(bench.pair.tx.ring === null && bench.pair.rx.ring === null);
    });
  });

  test("interrupts go to the descriptor that is there now", () => {
    withBench((bench) => {
      bench.configure();
      const irq = bench.newEventFd();
      done(bench.ask(11), 11);
      done(bench.ask(8, words(1), [irq]), 8);
      publish(bench, 0, frameOf(1));
      assert.equal(bench.pair.drainTx(), 1);
      assert.equal(drainEventFd(irq), 1);
      assert.equal(bench.pair.tx.counters[INTERRUPTS], 1);
    });
  });

  test("a memory table that changes while packets flow: same ring, same position", () => {
    withBench((bench) => {
      bench.configure();
      for (const type of [10, 11]) done(bench.ask(type), type);
      publish(bench, 0, frameOf(0));
      bench.pair.drainTx();
      // Cut in two, and from another descriptor of the same file; a buffer now lies across the cut,
      // and goes out all the same.
      const other = dup(bench.memfd);
      const halves = table([0, 0x40010, 0], [0x40010, 2 ** 20 - 0x40010, 0x40010]);
      done(bench.ask(5, halves, [bench.memfd, other]), 5);
      close(other);
      publish(bench, 1, frameOf(1));
      publish(bench, 2, frameOf(2), 0x50000);
      bench.pair.drainTx();
      assert.deepEqual(bench.port.sent, [frameOf(0), frameOf(1), frameOf(2)]);
      assert.equal(bench.pair.tx.counters[PACKETS], 3);
    });
  });

  test("queue pauses when a table lacks its context, and resumes at its position with the next one", () => {
    withBench((bench) => {
      bench.configure();
      for (const type of [10, 11]) done(bench.ask(type), type);
      publish(bench, 0, frameOf(0));
      bench.pair.drainTx();
      done(bench.ask(5, table([0, 0x20000, 0]), [bench.memfd]), 5);
      assert.equal(bench.pair.tx.ring, null);
      assert.notEqual(bench.pair.rx.ring, null);
      assert.equal(bench.frontend.backend.counters.contextsLost, 1);
      assert.match(bench.warnings.join(), /TX0/);
      publish(bench, 1, frameOf(1));
      assert.equal(bench.pair.drainTx(), 0);
      done(bench.ask(5, table([0, 2 ** 20, 0]), [bench.memfd]), 5);
      assert.equal(bench.pair.drainTx(), 1);
      assert.deepEqual(bench.port.sent, [frameOf(0), frameOf(1)]);
    });
  });

  test("queue pauses when its context is replaced by other memory, until the old memory is back", () => {
    withBench((bench) => {
      bench.configure();
      for (const type of [10, 11]) done(bench.ask(type), type);
      const other = createMemfd("other", 2 ** 20, { seal: true });
      const parts = table([0, 0x20000, 0], [0x20000, 2 ** 20 - 0x20000, 0x20000]);
      done(bench.ask(5, parts, [bench.memfd, other]), 5);
      close(other);
      assert.equal(bench.pair.tx.ring, null);
      assert.equal(bench.frontend.backend.counters.contextsLost, 1);
      done(bench.ask(5, table([0, 2 ** 20, 0]), [bench.memfd]), 5);
      publish(bench, 0, frameOf(0));
      assert.equal(bench.pair.drainTx(), 1);
      assert.deepEqual(bench.port.sent, [frameOf(0)]);
    });
  });
});

describe("programs that are not proved", () => {
  /** sring, but its txc reads beyond its context. */
  const careless: RingFormat = {
    ...sring,
    name: "careless",
    programs: (options) => {
      const { form, code } = programsOf(sring, options);
      const txc = assembleText(["r0 = *(u64 *)(r1 + 32000)", "exit"]);
      return { form, code: new Map([...code, [PROGRAM_IDS.txc, txc]]) };
    },
  };

  test("are not handed out, and status says why", () => {
    withBench(
      (bench) => {
        assert.equal(typeof bench.ask(3, words(1, 1, 16, 16)), "object");
        refused(bench.ask(4), 4);
        assert.match(bench.frontend.backend.lastRefusal, /careless's programs \(v1\) are not safe/);
      },
      () => new ProxyBench(careless),
    );
  });

  test("are handed out with a warning when that is allowed", () => {
    withBench(
      (bench) => {
        bench.ask(3, words(1, 1, 16, 16));
        const reply = bench.ask(4);
        assert.ok(reply !== null && reply !== "closed" && reply.fds.length === 1);
        close(reply.fds[0]!);
        assert.deepEqual(bench.warnings, ["programs not proved: txc (v1)"]);
      },
      () => new ProxyBench(careless, true),
    );
  });
});
