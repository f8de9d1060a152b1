/**
 * Memory does not grow with operations that a guest, its VMM or a packet may repeat. Views of
 * native memory grow it, because the worker's event loop never runs. So the tests compare the
 * number of views, and the resident size if many repetitions are affordable. They do not return to
 * the event loop, either.
 *
 * BPFHV_FULL=1: every operation of a guest 10^6 times, requests of a
 * peer 10^5 times, every port 10^7 packets.
 */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { Bench, frameOf } from "../../test/support/guest.ts";
import { ProxyBench, message as proxyMessage, table, words } from "../../test/support/proxy.ts";
import { BAR_DOORBELLS, BAR_PROGRAM, BAR_REGISTERS, REG } from "../abi/index.ts";
import { FORMATS } from "../devices/registry.ts";
import { Batch } from "../memory/index.ts";
import { openPorts, parsePort } from "../net/create.ts";
import { readBar, writeBar } from "../nic/bars.ts";
import { close } from "../os/fd.ts";
import { type Mapping, mapAnonymous, viewsMade } from "../os/memory.ts";

const FULL = process.env.BPFHV_FULL === "1";
const MIB = 1 << 20;
/** Growth that garbage collection may leave. The leaks that these tests are for took 230 MiB. */
const SLACK = 64 * MIB;

/** Runs `action(0)` to `action(times - 1)` and checks that memory and views do not grow. */
function expectNoGrowth(what: string, times: number, action: (n: number) => void): void {
  const warm = Math.ceil(times / 50);
  for (let n = 0; n < warm; n++) action(n);
  const [views, resident] = [viewsMade(), process.memoryUsage.rss()];
  for (let n = 0; n < times; n++) action(n);
  assert.equal(viewsMade() - views, 0, `${what}: views made`);
  const grown = process.memoryUsage.rss() - resident;
  assert.ok(grown < SLACK, `${what}: ${Math.round(grown / MIB)} MiB more after ${times} times`);
}

/** Registers with a slow write: mapping a context, copying a blob. */
const SLOW = new Set<number>([REG.CTX_PADDR_HI, REG.PAGES_HI, REG.BLOB_HI]);

describe("operations that a guest repeats", () => {
  for (const device of FORMATS) {
    test(`${device.name}: views do not grow when any register is written repeatedly`, () => {
      const bench = new Bench({ device, pairs: 2, config: { rxBufs: 16, txBufs: 16 } });
      bench.driver.open();
      const memory = bench.memory.allocate(1 << 16, 4096);
      const values = [0, 1, 0xffffffff, memory, 3, 1 << 31];
      for (let offset = 0; offset < REG.EXT_END + 64; offset += 4) {
        const times = FULL ? 1_000_000 : SLOW.has(offset) ? 1000 : 3000;
        expectNoGrowth(`register ${offset}`, times, (n) => {
          writeBar(bench.nic, BAR_REGISTERS, offset, 4, values[n % values.length]);
          readBar(bench.nic, BAR_REGISTERS, offset, 4);
        });
      }
      bench.close();
    });

    test(`${device.name}: views do not grow when contexts and blobs are repeated`, () => {
      const bench = new Bench({ device });
      bench.driver.open();
      bench.driver.close();
      const nic = bench.nic;
      const memory = bench.memory.allocate(1 << 20, 4096);
      const list = bench.memory.allocate(8 * 256);
      const pages = new Uint32Array(2 * 256);
      for (let i = 0; i < 256; i++) pages[2 * i] = memory + 4096 * (255 - i);
      bench.memory.bytes(list, 8 * 256).set(new Uint8Array(pages.buffer));
      const write = (low: number, high: number, address: number) => {
        writeBar(nic, BAR_REGISTERS, low, 4, address);
        writeBar(nic, BAR_REGISTERS, high, 4, 0);
      };
      const { blob, context } = nic.refusals.counts;
      const times = FULL ? 1_000_000 : 4000;
      expectNoGrowth("contiguous contexts", times, (n) => {
        writeBar(nic, BAR_REGISTERS, REG.QUEUE_SELECT, 4, n % 2);
        write(REG.CTX_PADDR_LO, REG.CTX_PADDR_HI, memory + 16 * (n % 256));
      });
      expectNoGrowth("contexts by page list", times, (n) => {
        writeBar(nic, BAR_REGISTERS, REG.QUEUE_SELECT, 4, n % 2);
        write(REG.PAGES_LO, REG.PAGES_HI, list);
      });
      const cheap = FULL ? 1_000_000 : 300_000;
      expectNoGrowth("blobs", cheap, () => write(REG.BLOB_LO, REG.BLOB_HI, memory));
      assert.deepEqual(
        [nic.refusals.counts.blob, nic.refusals.counts.context],
        [blob, context],
        "none was refused",
      );
      bench.close();
    });
  }

  test("views do not grow when BARs are accessed at every size", () => {
    const bench = new Bench();
    bench.driver.open();
    for (const bar of [BAR_REGISTERS, BAR_DOORBELLS, BAR_PROGRAM]) {
      for (const size of [1, 2, 4]) {
        // The registers' slow writes are four bytes long, and have a test of their own.
        const step = bar === BAR_REGISTERS && size === 4 ? 0 : size;
        expectNoGrowth(`BAR ${bar}, ${size} bytes`, FULL ? 1_000_000 : 100_000, (n) => {
          readBar(bench.nic, bar, (n * size) % 4096, size);
          writeBar(bench.nic, bar, (n * step) % 4096, size, n);
        });
      }
    }
    bench.close();
  });

  test("views do not grow when the machine resets, masks or remaps the NIC", () => {
    const bench = new Bench({ config: { rxBufs: 16, txBufs: 16 } });
    bench.driver.open();
    const { abilities } = bench.nic.state;
    expectNoGrowth("life cycles", FULL ? 100_000 : 1000, (n) => {
      bench.nic.reset();
      writeBar(bench.nic, BAR_REGISTERS, REG.EXT_ACK, 4, abilities);
      bench.driver.open();
      bench.nic.busMasterChanged(false);
      bench.nic.busMasterChanged(true);
      bench.memory.setVisible(n % 2 === 0);
      bench.nic.memoryChanged();
      bench.memory.setVisible(true);
      bench.nic.memoryChanged();
      assert.notEqual(bench.local.pairs[0].rx.ring, null);
    });
    bench.close();
  });
});

describe("requests that a backend's peer repeats", () => {
  test("views do not grow when requests and connections are repeated", () => {
    const bench = new ProxyBench();
    bench.configure();
    const bytes: [string, Uint8Array, readonly number[]][] = [
      ["GET_FEATURES", proxyMessage(1, new Uint8Array(0)), []],
      ["SET_FEATURES", proxyMessage(2, words(0, 0)), []],
      ["SET_PARAMETERS", proxyMessage(3, words(1, 1, 16, 16)), []],
      ["GET_PROGRAMS", proxyMessage(4, new Uint8Array(0)), []],
      ["SET_MEM_TABLE", proxyMessage(5, table([0, MIB, 0])), [bench.memfd]],
      ["SET_QUEUE_CTX", proxyMessage(6, words(0, 0, 0x10000, 0)), []],
      ["no SET_QUEUE_CTX", proxyMessage(6, words(0, 0, 0xfffffff0, 0)), []],
      ["RX_DISABLE", proxyMessage(12, new Uint8Array(0)), []],
      ["unknown", proxyMessage(99, new Uint8Array(0)), []],
    ];
    for (const [name, request, fds] of bytes) {
      const many = name.endsWith("SET_QUEUE_CTX") ? 1_000_000 : 100_000;
      expectNoGrowth(name, FULL ? many : 2000, () => {
        bench.send(request, fds);
        const reply = bench.reply();
        assert.ok(reply !== null && reply !== "closed");
        for (const fd of reply.fds) close(fd);
      });
    }
    expectNoGrowth("connections", FULL ? 100_000 : 500, () => {
      bench.connect();
      bench.configure();
      bench.closeEventFds();
    });
    bench.close();
  });
});

/** Returns a batch of 64 packets to send, or of as many free buffers, in memory of its own. */
function batchIn(memory: Mapping, packet: Uint8Array): Batch {
  const batch = new Batch(64);
  new Uint8Array(memory.view(0, 64 * 2048)).fill(0);
  for (let p = 0; p < 64; p++) {
    new Uint8Array(memory.view(p * 2048, packet.length)).set(packet);
    batch.push(memory.address + p * 2048, packet.length, p);
  }
  return batch;
}

describe("packets", () => {
  const capture = join(tmpdir(), `bpfhv-growth-${process.pid}.pcap`);
  after(() => rmSync(capture, { force: true }));
  const ports = ["sink", "null", "loopback", "source:number=14", `pcap:write=${capture}`];
  for (const text of ports) {
    test(`views do not grow when packets pass ${text}`, () => {
      const memory = mapAnonymous(64 * 2048);
      const out = batchIn(memory, frameOf(0));
      const free = new Batch(64);
      const [port] = openPorts(parsePort(text), 1, false);
      expectNoGrowth(text, (FULL ? 10_000_000 : 320_000) / 64, () => {
        port.send(out);
        free.clear();
        for (let s = 0; s < 64; s++) free.addSegment(memory.address + s * 2048, 2048);
        port.receive(free);
      });
      port.close();
      memory.unmap();
    });
  }
});
