/**
 * The demo without a virtual machine: a guest driver in this process, over shared memory, against
 * the same NIC, ring, engine and programs. The programs run compiled to WebAssembly, so rates say
 * little about a real guest; that every packet arrives, in order and unchanged, says more.
 */

import { proofOf, proveDevice } from "../src/devices/proof.ts";
import { DEFAULT_FORMAT, findFormat } from "../src/devices/registry.ts";
import type { Runner } from "../src/ebpf/runner.ts";
import { GuestDriver } from "../src/guest/driver.ts";
import { LocalMemory } from "../src/guest/memory.ts";
import { LoopbackPort } from "../src/net/loopback.ts";
import { DEFAULT_BUFS } from "../src/nic/config.ts";
import { LocalNic } from "../src/nic/local.ts";

export interface EmbeddedResult {
  readonly sent: number;
  readonly received: number;
  /** Packets that came back changed or out of order. */
  readonly wrong: number;
  readonly fromGuestPps: number;
  readonly toGuestPps: number;
  /** Guest to port and back, one packet at a time. */
  readonly rttMs: number;
  /** Instructions of the guest's programs per packet. */
  readonly instructionsPerPacket: { readonly tx: number; readonly rx: number };
  /** What ran the guest's programs. */
  readonly runners: readonly Runner["name"][];
}

/** Describes the result for people. */
export function describe(result: EmbeddedResult): string {
  const { sent, received, wrong, fromGuestPps, toGuestPps, rttMs, runners } = result;
  const { tx, rx } = result.instructionsPerPacket;
  const compiled = runners.every((name) => name === "jit");
  return [
    `bpfhv/${DEFAULT_FORMAT}, a user-space guest over shared memory`,
    `  programs    ${compiled ? "compiled to WebAssembly" : "in the interpreter, some or all"}`,
    `  packets     ${sent} sent, ${received} received, ${wrong} changed or out of order`,
    `  from guest  ${(fromGuestPps / 1000).toFixed(0)} kp/s`,
    `  to guest    ${(toGuestPps / 1000).toFixed(0)} kp/s`,
    `  round trip  ${(rttMs * 1000).toFixed(1)} us`,
    `  eBPF        ${tx.toFixed(1)} instructions a packet sent, ${rx.toFixed(1)} received`,
  ].join("\n");
}

/** 60 to 1499 bytes, numbered, filled with what depends on the number. */
function fill(frame: Uint8Array, number: number): Uint8Array {
  const part = frame.subarray(0, 60 + (number % 1440));
  new DataView(part.buffer, part.byteOffset).setUint32(14, number);
  part.fill(number & 0xff, 18);
  return part;
}

function isRight(frame: Uint8Array, number: number): boolean {
  if (frame.length !== 60 + (number % 1440)) return false;
  const said = new DataView(frame.buffer, frame.byteOffset).getUint32(14);
  return said === number && frame[18] === (number & 0xff) && frame.at(-1) === (number & 0xff);
}

export function runEmbedded(options: { device?: string; packets?: number } = {}): EmbeddedResult {
  const device = findFormat(options.device ?? DEFAULT_FORMAT);
  if (device === undefined) throw new Error(`no device "${options.device}"`);
  const sizes = { rxBufs: DEFAULT_BUFS, txBufs: DEFAULT_BUFS };
  // As everywhere before a guest gets them.
  proofOf(device, proveDevice(device, sizes), false);
  const total = options.packets ?? 200_000;
  const memory = new LocalMemory(16 << 20);
  const local = new LocalNic({ device, memory, ports: [new LoopbackPort("wait")], config: sizes });
  const driver = new GuestDriver(local, memory);
  local.interrupt = (vector) => driver.interrupt(vector);
  driver.open();
  const scratch = new Uint8Array(2048);
  let sent = 0;
  let received = 0;
  let wrong = 0;
  const take = (frame: Uint8Array): void => {
    if (!isRight(frame, received)) wrong++;
    received++;
  };
  const time = { out: 0, back: 0 };
  while (received < total) {
    const started = performance.now();
    for (let n = 0; n < 200 && sent < total && driver.send(0, fill(scratch, sent)); n++) sent++;
    local.pairs[0].portWritable();
    local.pairs[0].drainTx();
    const turned = performance.now();
    const before = received;
    local.pairs[0].fillRx();
    driver.receive(0, take);
    driver.clean(0);
    time.out += turned - started;
    time.back += performance.now() - turned;
    if (received === before && sent === total && local.turn() === 0) break;
  }
  const rttMs = roundTrip(
    local,
    driver,
    () => {
      sent++;
      return fill(scratch, sent - 1);
    },
    take,
  );
  const instructionsPerPacket = {
    tx: driver.tx[0].executed / sent,
    rx: driver.rx[0].executed / received,
  };
  const runners = [...driver.tx[0].runners, ...driver.rx[0].runners];
  local.nic.detach();
  memory.close();
  return {
    sent,
    received,
    wrong,
    fromGuestPps: (total / time.out) * 1000,
    toGuestPps: (total / time.back) * 1000,
    rttMs,
    instructionsPerPacket,
    runners,
  };
}

function roundTrip(
  local: LocalNic,
  driver: GuestDriver,
  next: () => Uint8Array,
  take: (frame: Uint8Array) => void,
): number {
  const rounds = 1000;
  const started = performance.now();
  for (let n = 0; n < rounds; n++) {
    driver.send(0, next());
    local.turn();
    driver.receive(0, take);
    driver.clean(0);
  }
  return (performance.now() - started) / rounds;
}
