/**
 * A PCI device in one file: 4 KiB of scratch memory, and a timer that interrupts.
 *
 *   node dist/examples/scratch-device.js --socket /tmp/scratch.sock
 *
 * BAR 0, 32-bit registers: 0x000 identity (read only), 0x004 period of the timer in ms (0 stops
 * it), 0x008 how often it fired; from 0x100 on plain memory. MSI-X vector 0 fires with the timer.
 * PCI id 1b36:5c4a, class "unassigned".
 */
import { parseArgs } from "node:util";
import type { DeviceHost, PciDevice, Timer } from "../src/vfio-user/index.ts";
import { ServerLoop, VfioUserServer } from "../src/vfio-user/index.ts";

const IDENTITY = 0x5343_5248;
const REGISTER = { identity: 0x000, period: 0x004, fired: 0x008, memory: 0x100 } as const;

class ScratchDevice implements PciDevice {
  readonly identity = { vendor: 0x1b36, device: 0x5c4a, classCode: 0xff0000 };
  readonly bars = [{ size: 4096 }];
  readonly vectors = 1;
  readonly #bytes = new DataView(new ArrayBuffer(4096));
  #host: DeviceHost | null = null;
  #timer: Timer | null = null;
  loop: ServerLoop | null = null;

  attached(host: DeviceHost): void {
    this.#host = host;
  }

  read(_bar: number, offset: number, size: number): number {
    if (size === 4) return this.#bytes.getUint32(offset, true);
    return size === 2 ? this.#bytes.getUint16(offset, true) : this.#bytes.getUint8(offset);
  }

  write(_bar: number, offset: number, size: number, low: number, high: number): void {
    if (offset === REGISTER.period && size === 4) this.#setPeriod(low);
    if (offset < REGISTER.memory) return;
    if (size === 1) this.#bytes.setUint8(offset, low);
    else if (size === 2) this.#bytes.setUint16(offset, low, true);
    else this.#bytes.setUint32(offset, low, true);
    if (size === 8) this.#bytes.setUint32(offset + 4, high, true);
  }

  #setPeriod(ms: number): void {
    if (this.#timer !== null) this.loop?.cancel(this.#timer);
    this.#timer = ms === 0 ? null : this.loop!.every(ms, () => this.#tick());
    this.#bytes.setUint32(REGISTER.period, ms, true);
  }

  #tick(): void {
    const fired = this.#bytes.getUint32(REGISTER.fired, true);
    this.#bytes.setUint32(REGISTER.fired, fired + 1, true);
    this.#host?.fire(0);
  }

  reset(): void {
    this.#setPeriod(0);
    new Uint8Array(this.#bytes.buffer).fill(0);
    this.#bytes.setUint32(REGISTER.identity, IDENTITY, true);
  }

  busMasterChanged(): void {}
}

const { values } = parseArgs({ options: { socket: { type: "string" } } });
if (values.socket === undefined) {
  console.error("usage: node dist/examples/scratch-device.js --socket PATH");
  process.exit(2);
}
const device = new ScratchDevice();
const server = new VfioUserServer(device, {
  socketPath: values.socket,
  log: (message) => console.log(message),
  onWarning: (code, message) => console.warn(`${code}: ${message}`),
});
device.loop = new ServerLoop(server);
device.reset();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => device.loop!.stop());
console.log(`listening on ${values.socket}`);
await device.loop.run();
