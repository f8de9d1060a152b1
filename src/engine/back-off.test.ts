/** Guests that republish broken descriptors at once: neither side may spin on them. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Bench, frameOf, TestPort } from "../../test/support/guest.ts";
import type { RingFormat } from "../devices/format.ts";
import { FORMATS } from "../devices/registry.ts";
import { GuestDriver } from "../guest/driver.ts";
import type { GuestRing } from "../guest/ring.ts";
import { DROP_BAD_ADDRESS, DROP_PORT } from "../memory/counters.ts";
import type { GuestMemory } from "../memory/index.ts";
import { createEventFd, signalEventFd } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import { BackOff } from "./back-off.ts";
import { Loop } from "./loop.ts";

const BUFS = 64;
const BUFFER = 2048;
const RUN_MS = 400;
/** Polls without delay, then after 1, 2, 4 … ms, and a margin for turns that follow a wake-up. */
const MOST_POLLS = 40;

/**
 * A guest whose buffers lie in memory that the VMM does not share while `shared` is false.
 */
class UnsharedBench {
  readonly bench: Bench;
  shared = false;

  constructor(device: RingFormat) {
    this.bench = new Bench({ device, config: { rxBufs: BUFS, txBufs: BUFS } });
    const { nic, driver } = this.bench;
    const rings = [driver.rx[0], driver.tx[0]];
    const memory = nic.host!.memory;
    const translate = (address: number, length: number, write: boolean): number =>
      !this.shared && rings.some((ring) => holds(ring, address))
        ? 0
        : memory.translate(address, length, write);
    nic.host = { memory: withTranslate(memory, translate), fire: nic.host!.fire };
    driver.open();
  }

  /** Runs the loop, and `guest` in each of its turns. @returns turns of the loop */
  run(guest: () => void): number {
    const deadline = performance.now() + RUN_MS;
    const loop = new Loop({
      pairs: this.bench.local.pairs,
      control: {
        timeoutMs: -1,
        register: () => {},
        handle: () => {
          guest();
          if (performance.now() > deadline) loop.stop();
          return 0;
        },
      },
      housekeeping: () => {
        if (performance.now() > deadline) loop.stop();
      },
    });
    loop.run();
    loop.close();
    return loop.loopStats.turns;
  }
}

/** Memory with another `translate`. */
function withTranslate(memory: GuestMemory, translate: GuestMemory["translate"]): GuestMemory {
  return new Proxy(memory, {
    get: (of, key) => {
      if (key === "translate") return translate;
      const value: unknown = Reflect.get(of, key, of);
      return typeof value === "function" ? value.bind(of) : value;
    },
  });
}

function holds(ring: GuestRing, address: number): boolean {
  const first = ring.addressOf(0);
  return address >= first && address < first + BUFS * BUFFER;
}

describe("broken descriptors that the guest republishes immediately", () => {
  for (const device of FORMATS) {
    test(`${device.name}: cost few polls as receive buffers; traffic resumes after repair`, () => {
      const host = new UnsharedBench(device);
      const { bench } = host;
      let guestTurns = 0;
      host.run(() => {
        guestTurns++;
        bench.take();
      });
      const counters = bench.local.pairs[0].rx.counters;
      assert.ok(counters[DROP_BAD_ADDRESS] >= BUFS, "they were seen");
      assert.ok(counters[DROP_BAD_ADDRESS] <= MOST_POLLS * BUFS, `${counters[DROP_BAD_ADDRESS]}`);
      assert.ok(guestTurns < 10 * MOST_POLLS, `${guestTurns} turns`);
      host.shared = true;
      let got = 0;
      bench.ports[0].incoming.push(frameOf(1), frameOf(2));
      host.run(() => {
        got += bench.take().length;
      });
      assert.equal(got, 2);
      bench.close();
    });

    test(`${device.name}: cost few polls as packets to send; good ones are sent after repair`, () => {
      const host = new UnsharedBench(device);
      const { bench } = host;
      let offered = 0;
      host.run(() => {
        while (bench.driver.send(0, frameOf(offered))) offered++;
      });
      const counters = bench.local.pairs[0].tx.counters;
      assert.ok(counters[DROP_BAD_ADDRESS] >= BUFS, "they were seen");
      assert.ok(counters[DROP_BAD_ADDRESS] <= MOST_POLLS * BUFS, `${counters[DROP_BAD_ADDRESS]}`);
      assert.ok(offered <= (MOST_POLLS + 1) * BUFS, `${offered} packets`);
      host.shared = true;
      host.run(() => {
        bench.driver.send(0, frameOf(7));
      });
      assert.ok(bench.ports[0].sent.length > 0);
      bench.close();
    });
  }
});

for (const device of FORMATS) {
  test(`${device.name}: back-off ends when a driver enables the rings after a reset`, (t) => {
    t.mock.method(performance, "now", () => 5000);
    const host = new UnsharedBench(device);
    const { bench } = host;
    const [pair] = bench.local.pairs;
    const publish = () => {
      while (bench.driver.send(0, frameOf(1)));
      bench.take();
    };
    for (let n = 0; n < MOST_POLLS; n++) {
      publish();
      bench.local.turn();
    }
    assert.ok(pair.rxBackingOff);
    const { counters } = pair.tx;
    const found = counters[DROP_BAD_ADDRESS];
    publish();
    bench.local.turn();
    assert.equal(counters[DROP_BAD_ADDRESS], found, "transmission is in back-off");
    // Reset does not end the back-off: a guest that restarts has not disabled the rings before.
    bench.nic.reset();
    host.shared = true;
    bench.driver = new GuestDriver(bench.local, bench.memory);
    bench.driver.open();
    assert.equal(pair.backOffMs, 0);
    bench.driver.send(0, frameOf(2));
    bench.local.turn();
    assert.equal(bench.ports[0].sent.length, 1);
    bench.close();
  });
}

/** A port that is always readable and always fails to receive. */
class FailingPort extends TestPort {
  override readonly fd = createEventFd();
  polls = 0;

  override receive(): void {
    this.polls++;
    this.failures++;
    this.dropped++;
    this.receiveDrained = true;
  }

  override close(): void {
    close(this.fd);
  }
}

test("port costs few polls when it keeps failing to receive", () => {
  const host = new UnsharedBench(FORMATS[0]);
  host.shared = true;
  const port = new FailingPort();
  signalEventFd(port.fd);
  host.bench.local.pairs[0].setPort(port);
  host.run(() => {});
  assert.ok(port.polls > 0 && port.polls < MOST_POLLS, `${port.polls} polls`);
  assert.equal(host.bench.local.pairs[0].rx.counters[DROP_PORT], port.polls);
  port.close();
  host.bench.close();
});

test("back-off begins after 16 polls, doubles, and ends when a packet moves", (t) => {
  let now = 5000;
  t.mock.method(performance, "now", () => now);
  const backOff = new BackOff();
  let errors = 0;
  for (let n = 0; n < 16; n++) backOff.polled(++errors, 0);
  assert.equal(backOff.leftMs, 0);
  for (const ms of [1, 2, 4, 8, 16, 32, 64, 128, 128, 128]) {
    backOff.polled(++errors, 0);
    assert.equal(backOff.leftMs, ms);
    now += ms - 0.5;
    assert.equal(backOff.leftMs, 0.5);
    now += 0.5;
    assert.equal(backOff.leftMs, 0);
  }
  backOff.polled(++errors, 0);
  backOff.end();
  assert.equal(backOff.leftMs, 0);
  for (let n = 0; n < 100; n++) backOff.polled(++errors, 1);
  assert.equal(backOff.leftMs, 0, "packets move");
  for (let n = 0; n < 100; n++) backOff.polled(errors, 0);
  assert.equal(backOff.leftMs, 0, "nothing new was broken");
  for (let n = 0; n < 30; n++) backOff.polled(++errors, 0);
  now += 1001;
  for (let n = 0; n < 16; n++) backOff.polled(++errors, 0);
  assert.equal(backOff.leftMs, 0, "forgotten after a second");
});
