import assert from "node:assert/strict";
import { closeSync, existsSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { openFds, openFdsOnce } from "../../test/support/os.ts";
import {
  type Answer,
  message,
  pack,
  RawClient,
  RecordingDevice,
  u32s,
  VERSION_PAYLOAD,
} from "../../test/support/vfio-user.ts";
import { EPOLLIN, Epoll } from "../os/epoll.ts";
import { createEventFd, drainEventFd } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import { createMemfd, mapFile } from "../os/memory.ts";
import { connectUnix, socketPair } from "../os/unix-socket.ts";
import { VfioUserServer } from "./server.ts";
import type { ServerOptions } from "./server-options.ts";

const EINVAL = 22;
const ETIMEDOUT = 110;
const ENOTSUP = 95;

interface Bench {
  readonly device: RecordingDevice;
  readonly server: VfioUserServer;
  readonly client: RawClient;
  /** Sends one message, lets the server work, gives the only answer (undefined: none). */
  ask(command: number, payload?: Buffer, options?: AskOptions): Answer | undefined;
  ended(): boolean;
}

interface AskOptions {
  readonly flags?: number;
  readonly size?: number;
  readonly fds?: readonly number[];
}

/** Runs with a fresh pair; afterwards nothing may be left open. */
function bench(action: (b: Bench) => void, negotiate = true, options: ServerOptions = {}): void {
  const before = openFds();
  const [a, b] = socketPair();
  const device = new RecordingDevice();
  const server = new VfioUserServer(device, options);
  const client = new RawClient(b);
  server.adopt(a);
  let ended = false;
  const ask = (command: number, payload: Buffer = Buffer.alloc(0), header: AskOptions = {}) => {
    client.send(message(command, payload, header), header.fds);
    server.handleReadable();
    const got = client.answers();
    ended ||= got.ended;
    assert.ok(got.answers.length <= 1, "never more than one answer");
    return got.answers[0];
  };
  try {
    if (negotiate) assert.equal(ask(1, VERSION_PAYLOAD)?.flags, 1);
    action({ device, server, client, ask, ended: () => ended });
  } finally {
    client.close();
    server.close();
  }
  assert.equal(openFdsOnce(before), before, "no descriptor left");
}

function refused(answer: Answer | undefined, errno: number): void {
  assert.deepEqual(
    { flags: answer?.flags, errno: answer?.errno, length: answer?.payload.length },
    { flags: 0x21, errno, length: 0 },
  );
}

const access = (
  offset: number,
  region: number,
  count: number,
  data: Buffer = Buffer.alloc(0),
): Buffer => Buffer.concat([pack([8, offset], [4, region], [4, count]), data]);

test("the answer to VERSION fits the room of the request when QEMU sends it", () => {
  bench(({ ask, device }) => {
    const answer = ask(1, VERSION_PAYLOAD)!;
    assert.equal(VERSION_PAYLOAD.length, 198, "the size QEMU 11.1 sends");
    assert.ok(answer.payload.length <= VERSION_PAYLOAD.length);
    assert.equal(answer.payload.at(-1), 0);
    assert.deepEqual(JSON.parse(answer.payload.subarray(4, -1).toString()), {
      capabilities: { max_msg_fds: 8, max_data_xfer_size: 65536 },
    });
    assert.deepEqual(device.events, ["attached"]);
    refused(ask(1, VERSION_PAYLOAD), EINVAL);
  }, false);
});

test("the answer to VERSION is shortened when the request is short", () => {
  for (const [json, expected] of [
    ["", 4],
    ["{}\0", 7],
    ['{"capabilities":{}}\0', 7],
  ] as const) {
    bench(({ ask }) => {
      const payload = Buffer.concat([u32s(0), Buffer.from(json)]);
      assert.equal(ask(1, payload)?.payload.length, expected);
    }, false);
  }
});

test("VERSION is refused when its major, its NUL or its text is wrong", () => {
  bench(({ ask, server }) => {
    refused(ask(1, Buffer.concat([u32s(1), Buffer.from("{}\0")])), EINVAL);
    for (const json of ["{}", "{}\0\0", "[]\0", "null\0", "{\0", "\0", "{\0}\0"]) {
      refused(ask(1, Buffer.concat([u32s(0), Buffer.from(json)])), EINVAL);
    }
    refused(ask(1, Buffer.alloc(3)), EINVAL);
    refused(ask(4, u32s(16, 0, 0, 0)), EINVAL);
    assert.equal(server.counters.refusedState, 1, "nothing before VERSION");
  }, false);
});

test("GET_INFO reports a PCI device, 9 regions and 5 interrupt kinds when it is asked", () => {
  bench(({ ask }) => {
    assert.deepEqual(ask(4, u32s(16, 0, 0, 0))?.payload, u32s(16, 3, 9, 5));
    refused(ask(4, u32s(15, 0, 0, 0)), EINVAL);
    refused(ask(4, u32s(16, 0, 0)), EINVAL);
    refused(ask(4, u32s(16, 0, 0, 0, 0)), EINVAL);
  });
});

test("GET_REGION_INFO reports size 0, without an error, when a region is absent", () => {
  bench(({ ask }) => {
    const sizes = [4096, 65536, 4096, 0, 0, 0, 0, 4096, 0];
    for (const [index, size] of sizes.entries()) {
      const flags = size === 0 ? 0 : 3;
      const answer = ask(5, u32s(32, 0, index, 0, 0, 0, 0, 0));
      assert.deepEqual(
        answer?.payload,
        u32s(32, flags, index, 0, size, 0, 0, 0),
        `region ${index}`,
      );
    }
    refused(ask(5, u32s(32, 0, 9, 0, 0, 0, 0, 0)), EINVAL);
    refused(ask(5, u32s(31, 0, 0, 0, 0, 0, 0, 0)), EINVAL);
    refused(ask(5, u32s(32, 0, 0)), EINVAL);
  });
});

test("GET_IRQ_INFO reports MSI-X's vectors, and error interrupts without a refusal", () => {
  bench(({ ask, server }) => {
    assert.deepEqual(ask(7, u32s(16, 0, 2, 0))?.payload, u32s(16, 1, 2, 5));
    for (const index of [0, 1, 4]) {
      assert.deepEqual(ask(7, u32s(16, 0, index, 0))?.payload, u32s(16, 0, index, 0));
    }
    refused(ask(7, u32s(16, 0, 3, 0)), EINVAL);
    assert.deepEqual([server.counters.refusedIrq, server.lastRefusal], [0, ""]);
    refused(ask(7, u32s(16, 0, 5, 0)), EINVAL);
    assert.equal(server.counters.refusedIrq, 1);
    assert.match(
      server.lastRefusal,
      /^DEVICE_GET_IRQ_INFO \[10000000.*\] with 0 descriptors: EINVAL$/,
    );
  });
});

test("the stream stays in step when commands, types or replies are refused", () => {
  bench(({ ask, server, ended }) => {
    for (const command of [0, 6, 11, 12, 14, 15, 16, 0xffff]) refused(ask(command), ENOTSUP);
    refused(ask(9, access(0, 0, 4), { flags: 2 }), EINVAL);
    refused(ask(9, access(0, 0, 4), { flags: 0x20 }), EINVAL);
    assert.equal(ask(9, access(0, 0, 4), { flags: 1 }), undefined, "a reply is not answered");
    assert.equal(server.counters.refusedReply, 1);
    assert.equal(ask(9, access(0, 0, 4))?.flags, 1);
    assert.equal(ended(), false);
  });
});

test("the connection ends when a size is invalid", () => {
  for (const size of [0, 15, 65536 + 33, 0xffffffff]) {
    bench(({ ask, ended, server, device }) => {
      ask(9, access(0, 0, 4), { size });
      assert.ok(ended());
      assert.equal(server.connected, false);
      assert.equal(server.counters.disconnects, 1);
      assert.deepEqual(device.events.slice(1), ["reset", "detached"]);
    });
  }
});

test("BAR accesses of 1, 2, 4 and 8 bytes succeed when they are not aligned", () => {
  bench(({ ask, device }) => {
    for (const [count, offset] of [
      [1, 3],
      [2, 5],
      [4, 9],
      [8, 17],
    ] as const) {
      const data = Buffer.from(Array.from({ length: count }, (_, i) => 0x81 + i));
      assert.deepEqual(ask(10, access(offset, 0, count, data))?.payload, access(offset, 0, count));
      const back = ask(9, access(offset, 0, count));
      assert.deepEqual(back?.payload, access(offset, 0, count, data));
      assert.equal(device.memory.getUint8(offset), 0x81);
    }
    assert.equal(ask(9, access(4095, 0, 1))?.flags, 1);
    assert.equal(ask(9, access(4088, 0, 8))?.flags, 1);
  });
});

test("an access is refused when it is outside of a region, or its size is odd", () => {
  bench(({ ask, server }) => {
    const bad = [
      [4093, 0, 4],
      [4096, 0, 1],
      [4089, 0, 8],
      [2 ** 32, 0, 4],
      [2 ** 53, 0, 4],
      [0, 0, 0],
      [0, 0, 3],
      [0, 0, 16],
      [0, 3, 4],
      [0, 6, 4],
      [0, 8, 1],
      [0, 9, 4],
      [0, 2 ** 32 - 1, 4],
      [0, 0, 2 ** 32 - 1],
      [1, 7, 4096],
      [0xfffffffc, 7, 8],
    ] as const;
    for (const [offset, region, count] of bad)
      refused(ask(9, access(offset, region, count)), EINVAL);
    assert.equal(server.counters.refusedRegion, bad.length);
    refused(ask(10, access(0, 0, 4, Buffer.alloc(3))), EINVAL);
    refused(ask(10, access(0, 0, 4, Buffer.alloc(5))), EINVAL);
    refused(ask(10, Buffer.alloc(15)), EINVAL);
    refused(ask(9, access(0, 0, 4, Buffer.alloc(4))), EINVAL);
    assert.equal(server.counters.refusedMalformed, 4);
  });
});

test("posted writes are not answered when they are refused, either", () => {
  bench(({ ask, server, device }) => {
    const flags = 0x10;
    assert.equal(ask(10, access(8, 0, 4, u32s(0x12345678)), { flags }), undefined);
    assert.equal(ask(10, access(8, 4, 4, u32s(1)), { flags }), undefined);
    assert.equal(ask(99, Buffer.alloc(0), { flags }), undefined);
    assert.equal(device.memory.getUint32(8, true), 0x12345678);
    assert.equal(server.counters.postedWrites, 2);
  });
});

test("messages are handled when they share a segment, or span several", () => {
  bench(({ client, server, device }) => {
    const write = message(10, access(0, 0, 4, u32s(5)), { flags: 0x10 });
    const read = message(9, access(0, 0, 4), { id: 0xbeef });
    client.send(Buffer.concat([...new Array(200).fill(write), read]));
    assert.equal(server.handleReadable(), 201);
    assert.deepEqual(
      client.answers().answers.map(({ id }) => id),
      [0xbeef],
    );
    assert.equal(device.memory.getUint32(0, true), 5);
    for (const byte of read) {
      assert.equal(client.answers().answers.length, 0);
      client.send(Buffer.from([byte]));
      server.handleReadable();
    }
    assert.equal(client.answers().answers.length, 1);
    assert.equal(server.handleReadable(), 0, "nothing there");
  });
});

test("a message arrives whole when it has the maximum length", () => {
  bench(({ client, server }) => {
    const bytes = message(10, access(0, 0, 65536, Buffer.alloc(65536)));
    assert.equal(client.send(bytes), bytes.length);
    for (let i = 0; i < 10; i++) server.handleReadable();
    refused(client.answers().answers[0], EINVAL);
  });
});

test("descriptors are closed when their message must not carry any", () => {
  bench(({ ask, server }) => {
    const fd = createEventFd();
    const before = openFds();
    assert.equal(ask(9, access(0, 0, 4), { fds: [fd, fd] })?.flags, 1);
    refused(ask(99, Buffer.alloc(0), { fds: [fd] }), ENOTSUP);
    refused(ask(8, u32s(20, 0x24, 2, 4, 2), { fds: [fd, fd] }), EINVAL);
    refused(ask(2, mapRequest(0, 4096, 3), { fds: [fd, fd] }), EINVAL);
    assert.equal(openFdsOnce(before), before);
    assert.equal(server.counters.strayDescriptors, 7);
    close(fd);
  });
});

test("the connection ends, and all descriptors are closed, when there are too many", () => {
  bench(({ ask, ended }) => {
    const fd = createEventFd();
    ask(9, access(0, 0, 4), { fds: new Array(17).fill(fd) });
    assert.ok(ended());
    close(fd);
  });
  bench(({ client, server }) => {
    const fd = createEventFd();
    const bytes = message(9, access(0, 0, 4));
    for (let i = 0; i < 20; i++) {
      client.send(bytes.subarray(i, i + 1), [fd]);
      server.handleReadable();
      if (!server.connected) break;
    }
    assert.equal(server.connected, false, "one per byte adds up");
    close(fd);
  });
});

function mapRequest(address: number, size: number, flags: number, offset = 0): Buffer {
  return pack([4, 32], [4, flags], [8, offset], [8, address], [8, size]);
}
const unmapRequest = (address: number, size: number, flags = 0) =>
  pack([4, 24], [4, flags], [8, address], [8, size]);

test("guest memory is removed after the device was notified when the client unmaps it", () => {
  bench(({ ask, server, device }) => {
    const memfd = createMemfd("ram", 16 * 4096, { seal: true });
    const ours = mapFile(memfd, 0, 16 * 4096, { write: true });
    assert.equal(ask(2, mapRequest(0x100000, 8 * 4096, 3, 4096), { fds: [memfd] })?.flags, 1);
    assert.equal(ask(2, mapRequest(0x200000, 4096, 1, 0), { fds: [memfd] })?.flags, 1);
    assert.equal(ask(2, mapRequest(0xfffc0000, 4096, 1))?.flags, 1, "without descriptor");
    const host = server.dma.translate(0x100008, 8, true);
    const [file] = server.dma.files;
    assert.equal(server.dma.files.length, 1, "one file, mapped once");
    new Uint32Array(ours.view(4096 + 8, 4))[0] = 42;
    const view = file!.mapping.view(host - file!.mapping.address, 4);
    assert.equal(new Uint32Array(view)[0], 42);
    assert.equal(server.dma.translate(0x200000, 4, true), 0, "read only");
    assert.equal(server.dma.translate(0xfffc0000, 4, false), 0, "no file");
    refused(ask(3, unmapRequest(0x100000, 4096)), 2);
    assert.deepEqual(
      ask(3, unmapRequest(0x100000, 8 * 4096))?.payload,
      unmapRequest(0x100000, 8 * 4096),
    );
    assert.equal(server.dma.translate(0x100008, 8, true), 0);
    assert.equal(ask(3, unmapRequest(0, 0, 2))?.flags, 1);
    assert.equal(server.dma.ranges.length, 0);
    const told = device.events.filter((event) => event.startsWith("unmapping"));
    assert.deepEqual(told, ["unmapping 1048576", "unmapping 2097152", "unmapping 4294705152"]);
    ours.unmap();
    close(memfd);
  });
});

test("map requests leave nothing behind when they are refused", () => {
  bench(({ ask, server }) => {
    const memfd = createMemfd("ram", 4 * 4096, { seal: true });
    const event = createEventFd();
    const before = openFds();
    const try_ = (payload: Buffer, fd = memfd) => ask(2, payload, { fds: [fd] })?.errno;
    assert.equal(try_(mapRequest(0, 5 * 4096, 3)), 27, "longer than the file");
    assert.equal(try_(mapRequest(0, 4096, 3, 4 * 4096)), 27);
    assert.equal(try_(mapRequest(1, 4096, 3)), EINVAL);
    assert.equal(try_(mapRequest(0, 4095, 3)), EINVAL);
    assert.equal(try_(mapRequest(0, 0, 3)), EINVAL);
    assert.equal(try_(mapRequest(0, 4096, 0)), EINVAL);
    assert.equal(try_(mapRequest(0, 4096, 4)), EINVAL);
    assert.equal(try_(mapRequest(-4096, 8192, 3)), EINVAL, "wraps");
    assert.equal(try_(mapRequest(0, 4096, 3), event), EINVAL, "an eventfd is refused as memory");
    assert.equal(try_(mapRequest(0, 4096, 3).subarray(0, 31)), EINVAL);
    assert.equal(openFdsOnce(before), before);
    assert.equal(try_(mapRequest(4096, 2 * 4096, 3)), 0);
    for (const [address, pages] of [
      [0, 2],
      [4096, 1],
      [8192, 1],
      [0, 4],
    ] as const) {
      assert.equal(try_(mapRequest(address, pages * 4096, 3)), 17, "overlap");
    }
    assert.equal(try_(mapRequest(0, 4096, 3)), 0);
    assert.equal(try_(mapRequest(3 * 4096, 4096, 3)), 0);
    assert.equal(openFdsOnce(before + 1), before + 1, "one descriptor kept for the file");
    assert.equal(server.dma.ranges.length, 3);
    close(memfd);
    close(event);
  });
});

const setIrqs = (flags: number, start: number, count: number, index = 2) =>
  u32s(20, flags, index, start, count);
const enableBusMaster = (ask: Bench["ask"]) =>
  assert.equal(ask(10, access(4, 7, 2, pack([2, 0x0406])))?.flags, 1);

test("eventfds are set, replaced and closed when SET_IRQS says so", () => {
  bench(({ ask, server }) => {
    enableBusMaster(ask);
    const events = [createEventFd(), createEventFd(), createEventFd()];
    const open = openFds();
    server.fire(0);
    assert.equal(server.counters.interruptsDropped, 1, "a vector without eventfd");
    assert.equal(ask(8, setIrqs(0x24, 1, 2), { fds: events.slice(0, 2) })?.flags, 1);
    server.fire(1);
    server.fire(2);
    server.fire(2);
    server.fire(3);
    server.fire(99);
    assert.deepEqual(events.map(drainEventFd), [1, 2, 0]);
    assert.equal(ask(8, setIrqs(0x24, 2, 1), { fds: [events[2]!] })?.flags, 1);
    assert.equal(openFds(), open + 2, "the replaced one is closed");
    server.fire(2);
    assert.deepEqual(events.map(drainEventFd), [0, 0, 1]);
    assert.equal(ask(8, setIrqs(0x24, 2, 1))?.flags, 1);
    server.fire(2);
    assert.equal(openFds(), open + 1);
    assert.equal(ask(8, setIrqs(0x21, 0, 0))?.flags, 1);
    server.fire(1);
    assert.deepEqual(events.map(drainEventFd), [0, 0, 0]);
    assert.equal(openFds(), open);
    for (const fd of events) close(fd);
  });
});

test("a vector stays pending until unmask when it fires masked", () => {
  bench(({ ask, server }) => {
    enableBusMaster(ask);
    const event = createEventFd();
    ask(8, setIrqs(0x24, 3, 1), { fds: [event] });
    assert.equal(ask(8, setIrqs(0x09, 3, 1))?.flags, 1);
    server.fire(3);
    assert.equal(drainEventFd(event), 0);
    assert.equal(ask(9, access(0x800, 2, 4))?.payload.readUInt32LE(16), 8);
    assert.equal(ask(8, setIrqs(0x11, 3, 1))?.flags, 1);
    assert.equal(drainEventFd(event), 1);
    assert.equal(ask(9, access(0x800, 2, 8))?.payload.readUInt32LE(16), 0);
    const bools = Buffer.concat([setIrqs(0x22, 2, 2), Buffer.from([0, 1])]);
    assert.equal(ask(8, bools)?.flags, 1);
    assert.equal(drainEventFd(event), 1, "triggered by the client");
    close(event);
  });
});

test("SET_IRQS changes nothing when it is refused", () => {
  bench(({ ask, server, client }) => {
    const event = createEventFd();
    const before = openFds();
    const bad: [Buffer, number[]][] = [
      [setIrqs(0x24, 0, 6), []],
      [setIrqs(0x24, 4, 2), [event, event]],
      [setIrqs(0x24, 0, 2), [event]],
      [setIrqs(0x24, 0, 1, 0), [event]],
      [setIrqs(0x24, 0, 1, 3), [event]],
      [setIrqs(0x26, 0, 1), [event]],
      [setIrqs(0x04, 0, 1), [event]],
      [setIrqs(0x3c, 0, 1), [event]],
      [setIrqs(0x164, 0, 1), [event]],
      [setIrqs(0x21, 0, 1), [event]],
      [setIrqs(0x24, 0, 0), []],
      [setIrqs(0x21, 0, 0, 5), []],
      [setIrqs(0x24, 0xffffffff, 1), [event]],
      [setIrqs(0x22, 0, 4), []],
      [setIrqs(0x24, 0, 1), [client.fd]],
      [setIrqs(0x24, 0, 1).subarray(0, 19), [event]],
    ];
    for (const [payload, fds] of bad) refused(ask(8, payload, { fds }), EINVAL);
    refused(ask(8, setIrqs(0x0c, 0, 1), { fds: [event] }), ENOTSUP);
    for (const index of [0, 1, 3, 4]) assert.equal(ask(8, setIrqs(0x21, 0, 0, index))?.flags, 1);
    assert.equal(server.counters.refusedIrq, bad.length + 1);
    assert.equal(openFdsOnce(before), before);
    close(event);
  });
});

test("the device fires no vector when bus mastering is off, or it sleeps", () => {
  bench(({ ask, server, device }) => {
    const event = createEventFd();
    ask(8, setIrqs(0x24, 0, 1), { fds: [event] });
    server.fire(0);
    enableBusMaster(ask);
    assert.equal(server.busMaster, true);
    server.fire(0);
    ask(10, access(0x44, 7, 2, pack([2, 3])));
    server.fire(0);
    ask(10, access(0x44, 7, 2, pack([2, 0])));
    server.fire(0);
    ask(10, access(4, 7, 2, pack([2, 0x0402])));
    server.fire(0);
    assert.equal(drainEventFd(event), 2);
    const told = ["busMaster true", "busMaster false", "busMaster true", "busMaster false"];
    assert.deepEqual(device.events.slice(1), told);
    close(event);
  });
});

test("memory and eventfds stay when the device is reset", () => {
  bench(({ ask, server, device }) => {
    const memfd = createMemfd("ram", 4096, { seal: true });
    const event = createEventFd();
    ask(2, mapRequest(0, 4096, 3), { fds: [memfd] });
    ask(8, setIrqs(0x24, 0, 1), { fds: [event] });
    for (const reset of [() => ask(13), () => ask(10, access(0x58, 7, 2, pack([2, 0xa810])))]) {
      enableBusMaster(ask);
      device.events.length = 0;
      assert.equal(reset()?.flags, 1);
      assert.deepEqual(device.events, ["busMaster false", "reset"]);
      assert.equal(ask(9, access(4, 7, 2))?.payload.readUInt16LE(16), 0);
      assert.equal(ask(9, access(0x58, 7, 2))?.payload.readUInt16LE(16), 0x2810, "FLR reads as 0");
    }
    device.events.length = 0;
    ask(13);
    assert.deepEqual(device.events, ["reset"], "twice in a row");
    enableBusMaster(ask);
    server.fire(0);
    assert.equal(drainEventFd(event), 1);
    assert.notEqual(server.dma.translate(0, 4096, true), 0);
    refused(ask(13, u32s(0)), EINVAL);
    close(event);
    close(memfd);
  });
});

test("a request is answered with EIO, and reported, when the device throws", () => {
  const warnings: string[] = [];
  bench(
    ({ ask, device, server }) => {
      device.read = () => {
        throw new TypeError("bug in the device");
      };
      refused(ask(9, access(0, 0, 4)), 5);
      assert.equal(server.counters.deviceErrors, 1);
      assert.match(warnings.join(), /device-error.*bug in the device/);
      device.reset = device.detached = () => {
        throw new Error("again");
      };
    },
    true,
    { onWarning: (code, text) => warnings.push(`${code} ${text}`) },
  );
  assert.equal(warnings.length, 3, "the end of the connection still runs every step");
});

test("the server closes after an access when the device asks for it meanwhile", () => {
  bench(({ device, server, client }) => {
    device.write = () => server.close();
    const write = message(10, access(0, 0, 4, u32s(1)));
    client.send(Buffer.concat([write, write]));
    server.handleReadable();
    const { answers, ended } = client.answers();
    assert.equal(answers.length, 1);
    assert.equal(ended, true);
    assert.equal(server.handleReadable(), 0);
  });
});

test("answers keep their order when they are delayed", () => {
  bench(
    ({ client, server }) => {
      client.send(Buffer.concat([1, 2, 3].map((id) => message(9, access(0, 0, 4), { id }))));
      client.answers();
      server.handleReadable();
      assert.equal(client.answers().answers.length, 0);
      const wait = server.timeoutMs;
      assert.ok(wait > 0 && wait <= 30);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, wait + 1);
      server.handleTimers();
      assert.deepEqual(
        client.answers().answers.map(({ id }) => id),
        [1, 2, 3],
      );
      assert.ok(server.timeoutMs > 1000, "only the VERSION is waited for");
    },
    false,
    { answerDelayMs: 30 },
  );
});

test("late requests are answered by an error alone when the server paused for too long", () => {
  bench(
    ({ client, server, device }) => {
      const pause = (ms: number) =>
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
      const exchange = (ms: number) => {
        client.send(message(9, access(0, 0, 4), { id: 1 }));
        client.send(message(13, Buffer.alloc(0), { id: 2 }));
        pause(ms);
        server.handleReadable();
        return client
          .answers()
          .answers.map(({ id, errno, payload }) => [id, errno, payload.length]);
      };
      const inTime = [
        [1, 0, 20],
        [2, 0, 0],
      ];
      assert.deepEqual(exchange(0), inTime);
      // The reset has an answer without data, which a client may get at any time.
      const late = [
        [1, ETIMEDOUT, 0],
        [2, 0, 0],
      ];
      assert.deepEqual(exchange(120), late);
      assert.equal(server.counters.lateAnswers, 1);
      assert.equal(server.counters.regionReads, 2, "it is executed");
      assert.deepEqual(device.events, ["attached", "reset", "reset"]);
      assert.deepEqual(exchange(0), inTime);
    },
    true,
    { lateAfterMs: 100 },
  );
});

test("a delayed answer loses its data when it is long overdue", () => {
  bench(
    ({ client, server }) => {
      client.send(message(1, VERSION_PAYLOAD));
      server.handleReadable();
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 120);
      server.handleTimers();
      const { answers } = client.answers();
      assert.deepEqual(
        answers.map(({ errno, payload }) => [errno, payload.length]),
        [[ETIMEDOUT, 0]],
      );
      assert.equal(server.counters.lateAnswers, 1);
    },
    false,
    { answerDelayMs: 10, lateAfterMs: 50 },
  );
});

test("requests stay late when those of one pause need several receives", () => {
  bench(
    ({ client, server }) => {
      const posted = message(10, access(0, 0, 4, u32s(5)), { flags: 0x10 });
      client.send(Buffer.concat(new Array(1000).fill(posted)));
      client.send(message(9, access(0, 0, 4)));
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 120);
      server.handleReadable();
      const first = server.counters.postedWrites;
      assert.ok(first > 0 && first < 1000, `${first} arrived with the first receive`);
      for (let n = 0; n < 4; n++) server.handleReadable();
      assert.deepEqual(
        client.answers().answers.map(({ errno }) => errno),
        [ETIMEDOUT],
      );
      client.send(message(9, access(0, 0, 4)));
      server.handleReadable();
      assert.equal(client.answers().answers[0]?.errno, 0);
    },
    true,
    { lateAfterMs: 100 },
  );
});

test("a client that never reads its answers is disconnected", () => {
  bench(({ client, server }) => {
    const burst = Buffer.concat(new Array(100).fill(message(9, access(0, 7, 4096))));
    for (let i = 0; i < 1000 && server.connected; i++) {
      try {
        client.send(burst);
      } catch {
        break;
      }
      server.handleReadable();
    }
    assert.equal(server.connected, false);
    assert.equal(server.counters.disconnects, 1);
  });
});

test("a second client is accepted when the first one is gone", () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-vfio-"));
  const socketPath = join(folder, "s");
  const before = openFds();
  const device = new RecordingDevice();
  const server = new VfioUserServer(device, { socketPath });
  const epoll = new Epoll();
  server.register(epoll, 5);
  const turn = () => {
    let handled = 0;
    while (epoll.wait(0) > 0) {
      assert.equal(epoll.tag(0), 5);
      assert.ok(epoll.events(0) & EPOLLIN);
      handled += server.handleReadable();
    }
    return handled;
  };
  const first = new RawClient(connectUnix(socketPath));
  const second = new RawClient(connectUnix(socketPath));
  const memfd = createMemfd("ram", 4096, { seal: true });
  first.send(message(1, VERSION_PAYLOAD));
  second.send(message(1, VERSION_PAYLOAD));
  assert.equal(turn(), 1, "the second waits");
  first.send(message(2, mapRequest(0, 4096, 3)), [memfd]);
  first.send(message(10, access(0x04, 7, 2, pack([2, 6]))));
  turn();
  first.close();
  turn();
  assert.deepEqual(device.events, [
    ...[
      "attached",
      "mapped 0",
      "busMaster true",
      "busMaster false",
      "reset",
      "unmapping 0",
      "detached",
    ],
    "attached",
  ]);
  assert.equal(server.dma.files.length, 0);
  assert.equal(second.answers().answers.length, 1);
  server.close();
  server.close();
  assert.equal(existsSync(socketPath), false);
  assert.equal(second.answers().ended, true);
  second.close();
  epoll.close();
  close(memfd);
  assert.equal(openFdsOnce(before), before);
  rmSync(folder, { recursive: true });
});

test("a client that sends no VERSION is disconnected after a timeout", () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-vfio-"));
  const socketPath = join(folder, "s");
  const lines: string[] = [];
  const server = new VfioUserServer(new RecordingDevice(), {
    ...{ socketPath, greetingMs: 500, log: (line: string) => lines.push(line) },
  });
  const silent = new RawClient(connectUnix(socketPath));
  const second = new RawClient(connectUnix(socketPath));
  second.send(message(1, VERSION_PAYLOAD));
  server.handleReadable();
  // Incomplete messages do not count as a greeting, nor does a request before VERSION.
  silent.send(message(4, u32s(16, 0, 0, 0)));
  silent.send(Buffer.alloc(3));
  server.handleReadable();
  assert.ok(server.timeoutMs > 0 && server.timeoutMs <= 500, `${server.timeoutMs}`);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 501);
  assert.equal(server.timeoutMs, 0);
  server.handleTimers();
  assert.equal(server.connected, false);
  assert.match(lines.join(), /client sent no VERSION within 0.5 s/);
  server.handleReadable();
  server.handleReadable();
  assert.equal(second.answers().answers.length, 1);
  assert.equal(server.timeoutMs, -1, "one that has greeted may be silent");
  for (const each of [silent, second]) each.close();
  server.close();
  rmSync(folder, { recursive: true });
});

test("the stream ends without a reset when the server closes with unread requests", () => {
  bench(({ client, server }) => {
    const flood = Buffer.concat(new Array(500).fill(message(9, access(0, 0, 4))));
    client.send(flood);
    server.close();
    assert.doesNotThrow(() => assert.equal(client.answers().ended, true));
  });
});

test("memory is refused with one warning when it cannot be sealed", () => {
  const warnings: string[] = [];
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-vfio-"));
  bench(
    ({ ask, server }) => {
      const memfd = createMemfd("ram", 4096, {});
      ask(2, mapRequest(0, 4096, 3), { fds: [memfd] });
      assert.deepEqual(warnings, []);
      const file = openSync(join(folder, "ram"), "w+");
      ftruncateSync(file, 4096);
      assert.equal(ask(2, mapRequest(4096, 4096, 3), { fds: [file] })?.flags, 1);
      assert.deepEqual(warnings, ["memory-not-sealed"]);
      assert.equal(ask(2, mapRequest(8192, 4096, 3), { fds: [file] })?.flags, 1);
      assert.equal(warnings.length, 1, "once");
      assert.notEqual(server.dma.translate(0, 4096, true), 0);
      assert.equal(server.dma.translate(4096, 1, false), 0);
      assert.match(server.dma.ranges[1].unreachable ?? "", /--allow-unsealed/);
      assert.equal(server.dma.files.length, 1);
      closeSync(file);
      close(memfd);
    },
    true,
    { onWarning: (code) => warnings.push(code) },
  );
  rmSync(folder, { recursive: true });
});
