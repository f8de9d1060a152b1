import assert from "node:assert/strict";
import test from "node:test";
import { openFds } from "../../test/support/os.ts";
import {
  message,
  pack,
  RawClient,
  RecordingDevice,
  u32s,
  VERSION_PAYLOAD,
} from "../../test/support/vfio-user.ts";
import { createEventFd, drainEventFd } from "../os/eventfd.ts";
import { close } from "../os/fd.ts";
import { createMemfd } from "../os/memory.ts";
import { socketPair } from "../os/unix-socket.ts";
import { type Random, randomFrom } from "../suite/case.ts";
import { VfioUserServer } from "./server.ts";

const SEED = Number(process.env.BPFHV_SEED ?? 20_250_713);
const MESSAGES = process.env.BPFHV_FULL === "1" ? 120_000 : 40_000;

const ODD = [
  0, 1, 2, 3, 4, 5, 8, 16, 20, 24, 32, 4095, 4096, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff,
];
const odd = (random: Random): number =>
  random(4) === 0 ? random(2 ** 32) : ODD[random(ODD.length)]!;

/** Well-formed requests of every kind, with values that are mostly near what the server knows. */
const GENERATORS: ((random: Random) => Buffer)[] = [
  () => message(1, VERSION_PAYLOAD),
  (r) =>
    message(2, pack([4, 32], [4, 1 + r(3)], [8, r(4) * 4096], [8, r(64) * 4096], [8, r(4) * 4096])),
  (r) => message(3, pack([4, 24], [4, 0], [8, r(64) * 4096], [8, r(4) * 4096])),
  (r) => message(3, pack([4, 24], [4, r(20) === 0 ? 2 : r(5)], [8, 0], [8, 0])),
  () => message(4, u32s(16, 0, 0, 0)),
  (r) => message(5, u32s(32, 0, r(11), 0, 0, 0, 0, 0)),
  (r) => message(7, u32s(16, 0, r(6), 0)),
  (r) => message(8, u32s(20, [0x24, 0x21, 0x22, 0x09, 0x11, r(256)][r(6)]!, r(4), r(6), r(4))),
  (r) => message(9, pack([8, r(4200)], [4, r(10)], [4, [1, 2, 4, 8, r(5000)][r(5)]!])),
  (r) => {
    const count = [1, 2, 4, 8, r(300)][r(5)]!;
    const data = Buffer.from(Array.from({ length: count }, () => r(256)));
    const head = pack([8, r(4200)], [4, [0, 1, 2, 7, 7, r(10)][r(6)]!], [4, count]);
    return message(10, Buffer.concat([head, data]), { flags: r(2) * 0x10 });
  },
  () => message(10, pack([8, 4], [4, 7], [4, 2], [2, 0x0406])),
  (r) => message(8, u32s(20, 0x24, 2, r(5), 1)),
  () => message(13, Buffer.alloc(0)),
  (r) =>
    message(r(20), Buffer.from(Array.from({ length: r(64) }, () => r(256))), { flags: odd(r) }),
];

/** Every other message is damaged: a byte, a 32-bit field, its length, or its size field. */
function mutate(bytes: Buffer, random: Random): Buffer {
  const kind = random(8);
  if (kind < 4) return bytes;
  if (kind === 4) bytes[random(bytes.length)] = random(256);
  else if (kind === 5) bytes.writeUInt32LE(odd(random), random(bytes.length >> 2) * 4);
  else if (kind === 6 && random(20) === 0) return bytes.subarray(0, random(bytes.length));
  else if (random(50) === 0) bytes.writeUInt32LE(odd(random), 4);
  return bytes;
}

test(`server leaks nothing when ${MESSAGES} messages are random or damaged (seed ${SEED})`, () => {
  const random = randomFrom(SEED);
  const device = new RecordingDevice();
  device.events.push = () => 0;
  const server = new VfioUserServer(device);
  const fds = [createEventFd(), createMemfd("ram", 4 * 4096, { seal: true }), createEventFd()];
  const before = openFds();
  let client: RawClient | null = null;
  let connections = 0;
  let answers = 0;
  for (let sent = 0; sent < MESSAGES; sent++) {
    if (client === null || !server.connected) {
      client?.close();
      const [a, b] = socketPair();
      server.adopt(a);
      client = new RawClient(b);
      client.send(message(1, VERSION_PAYLOAD));
      connections++;
    }
    const bytes = mutate(GENERATORS[random(GENERATORS.length)]!(random), random);
    const passed = [[fds[0]!], fds.slice(0, 2), fds.slice(1, 2), fds, [], [], [], []][random(8)]!;
    if (bytes.length > 0) client.send(bytes, passed);
    server.handleReadable();
    server.fire(random(8));
    server.dma.translate(random(70) * 4096 + random(4096), odd(random), random(2) === 0);
    answers += client.answers().answers.length;
    // A message that promises more than it has would swallow the ones that follow.
    if (random(300) === 0) {
      client.close();
      client = null;
      server.handleReadable();
    }
  }
  client?.close();
  server.handleReadable();
  assert.equal(server.connected, false);
  assert.equal(openFds(), before, "no descriptor left open");
  const { counters } = server;
  assert.equal(counters.deviceErrors, 0);
  assert.ok(counters.messages > MESSAGES / 2, `${counters.messages} messages arrived`);
  assert.ok(answers > MESSAGES / 4 && connections > 100);
  for (const name of [
    "refusedMalformed",
    "refusedUnknown",
    "refusedRegion",
    "refusedDma",
    "refusedIrq",
  ] as const) {
    assert.ok(counters[name] > 100, `${name}: ${counters[name]}`);
  }
  for (const name of ["interrupts", "interruptsDropped", "strayDescriptors", "resets"] as const) {
    assert.ok(counters[name] > 50, `${name}: ${counters[name]}`);
  }
  drainEventFd(fds[0]!);
  server.close();
  for (const fd of fds) close(fd);
});
