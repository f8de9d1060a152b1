import assert from "node:assert/strict";
import { test } from "node:test";
import { QUEUE_COUNTERS, type QueueCounterName } from "../memory/counters.ts";
import { controlSockets } from "./find-nics.ts";
import { window } from "./top-screen.ts";
import { count, type Look, ratesOf, render } from "./top-view.ts";

const ZERO = Object.fromEntries(QUEUE_COUNTERS.map(([name]) => [name, 0]));

function look(at: number, counters: Partial<Record<QueueCounterName, number>>, pid = 7): Look {
  const queue = {
    queue: "rx0",
    counters: { ...ZERO, ...counters },
    broken: false,
    fill: 250,
    bufs: 256,
  };
  const nic = { socket: "/run/vm1.sock", pid, device: "sring", port: "tap:tap0", queues: [queue] };
  const rest = { link: "up", step: "enabled", programs: "verified", generation: 3 };
  return { at, nic: { ...nic, ...rest, lastRefusal: "" } } as unknown as Look;
}

test("rates are what grew between two looks, per second", () => {
  const before = look(1000, { packets: 100, bytes: 1000, batches: 10, kicks: 4, dropPort: 1 });
  const now = look(3000, { packets: 700, bytes: 251000, batches: 20, kicks: 6, dropPort: 5 });
  const [queue] = ratesOf(before, now).queues;
  assert.equal(queue.packets, 300);
  assert.equal(queue.megabits, 1);
  assert.equal(queue.batch, 60);
  assert.equal(queue.kicks, 1);
  assert.deepEqual(queue.drops, { dropPort: 2 });
});

test("without an earlier look, or with another process behind the socket, there are no rates", () => {
  const now = look(3000, { packets: 700, dropPort: 5 });
  for (const before of [undefined, look(1000, { packets: 900 }, 8)]) {
    const [queue] = ratesOf(before, now).queues;
    assert.equal(queue.packets, 0);
    assert.deepEqual(queue.drops, {});
  }
});

test("no line is longer than 80 columns, whatever the path and the rates", () => {
  const big = { packets: 9e9, bytes: 9e13, batches: 3, kicks: 8e8, interrupts: 7e8 };
  const drops = { dropPort: 5e8, dropBadAddress: 4e8, dropBadLength: 3e8 };
  const now = look(1010, { ...big, ...drops });
  const rates = ratesOf(look(1000, {}), now);
  const lines = render([{ ...rates, socket: `/run/${"long/".repeat(30)}vm.sock` }, rates]);
  assert.ok(lines.length > 8);
  for (const line of lines) assert.ok(line.length <= 80, line);
  assert.ok(lines.some((line) => line.includes("dropPort")));
});

test("the fill of a ring is shown as it is now; of a queue that does not run, or is broken, that", () => {
  const rates = ratesOf(look(1000, {}), look(2000, { packets: 5 }));
  const row = (queue: object) => {
    const queues = [{ ...rates.queues[0], ...queue }];
    return render([{ ...rates, queues }]).at(-1) as string;
  };
  assert.match(row({}), / 250\/256$/);
  assert.match(row({ fill: 8192, bufs: 8192 }), / 8192\/8192$/);
  assert.match(row({ fill: null }), / -$/);
  assert.match(row({ broken: true }), / broken$/);
});

test("with no NIC it says how to get one", () => {
  assert.match(render([]).join("\n"), /bpfhv serve/);
});

test("a narrow terminal has fewer columns, and the packets and drops of every queue", () => {
  const rates = ratesOf(look(1000, {}), look(2000, { packets: 12_345, dropPort: 77 }));
  for (const width of [79, 72, 60, 40, 30, 20]) {
    const lines = render([rates], width);
    for (const line of lines) assert.ok(line.length <= width, `${width}: ${line}`);
    const at = lines.findIndex((line) => line.startsWith("  rx0"));
    assert.match(lines[at], /12\.3k/);
    assert.equal(lines[at].length, lines[at - 1].length, "heads stand above their columns");
    if (width >= 60) assert.match(lines[at], / 77 .*250\/256$/);
  }
});

test("lines that do not fit are counted, and can be scrolled to", () => {
  const lines = Array.from({ length: 50 }, (_, i) => `line ${i}`);
  const first = window(lines, 0, 20, 80);
  assert.equal(first.length, 21);
  assert.equal(first[0], "line 0");
  assert.match(first[20], /0 lines above, 30 below/);
  const last = window(lines, 30, 20, 80);
  assert.equal(last[19], "line 49");
  assert.match(last[20], /30 lines above, 0 below/);
  assert.match(window(lines.slice(0, 5), 0, 20, 80)[5], /q quits/);
  assert.ok(window(lines, 10, 5, 30).every((line) => line.length <= 30));
});

test("counts stay short", () => {
  assert.equal(count(0), "0");
  assert.equal(count(2.5), "2.5");
  assert.equal(count(999), "999");
  assert.equal(count(12_340), "12.3k");
  assert.equal(count(1_234_567), "1.23M");
});

test("control sockets are found among those that listen, each once", () => {
  const table = [
    "Num       RefCount Protocol Flags    Type St Inode Path",
    "0000000000000000: 00000002 00000000 00010000 0001 01 1001 /run/b.sock.ctl",
    "0000000000000000: 00000003 00000000 00000000 0001 03 1002 /run/b.sock.ctl",
    "0000000000000000: 00000002 00000000 00010000 0001 01 1003 /run/a.sock",
    "0000000000000000: 00000002 00000000 00010000 0001 01 1004 /run/a sock.ctl",
    "0000000000000000: 00000002 00000000 00010000 0001 01 1005 @abstract.ctl",
    "",
  ].join("\n");
  assert.deepEqual(controlSockets(table), ["/run/a sock.ctl", "/run/b.sock.ctl"]);
});
