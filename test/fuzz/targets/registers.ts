/**
 * Random accesses to the registers, doorbells and program window of a NIC, with rings overwritten.
 */
import { BAR_DOORBELLS, BAR_PROGRAM, BAR_REGISTERS, REG } from "../../../src/abi/index.ts";
import type { RingFormat } from "../../../src/devices/format.ts";
import { FORMATS } from "../../../src/devices/registry.ts";
import { readBar, writeBar } from "../../../src/nic/bars.ts";
import type { Random } from "../../support/ebpf-fuzz/random.ts";
import { Bench, frameOf } from "../../support/guest.ts";
import { expect, type Resources, type Session, type Target } from "../target.ts";
import { expectPackets } from "./good-driver.ts";
import { ResourceLimit, resourcesOf } from "./resources.ts";

/** The type of a step, and its numbers. */
type Step = readonly [what: What, a: number, b: number, c: number, d: number];
type Accesses = {
  readonly device: number;
  readonly pairs: number;
  readonly steps: readonly Step[];
};

const WHATS = ["read", "write", "scribble", "incoming", "bus master", "memory", "changed"] as const;
type What = (typeof WHATS)[number] | "reset" | "open";

const STEPS = 400;
const BUFS = 16;
const MIB = 1;
const BUFFER_SIZE = 2048;
/** All feature bits. */
const ALL = 0xffffffff;
const MEMORY_START = 0x100000;
const WARM_UP_CHECKS = 10;
const BARS = [BAR_REGISTERS, BAR_DOORBELLS, BAR_PROGRAM];
/** The public part of a context, which programs read, but not the host. */
const PUBLIC_BYTES = 2096;

function value(random: Random): number {
  const page = MEMORY_START + 4096 * random.below(256 * MIB);
  const shapes = [random.next(), random.below(16), 2 ** random.below(32), 0xffffffff, page, 0];
  return random.pick(shapes);
}

function access(what: What, random: Random): Step {
  const bar = random.once(4) ? random.pick(BARS) : BAR_REGISTERS;
  const size = random.pick([1, 2, 4, 4, 4, 4]);
  const end = bar === BAR_REGISTERS ? REG.EXT_END + 64 : 4096;
  const aligned = size === 4 && !random.once(8);
  const offset = aligned ? 4 * random.below(end / 4) : random.below(end - size);
  return [what, bar, offset, size, what === "read" ? 0 : value(random)];
}

function step(random: Random): Step {
  if (random.once(200)) return ["reset", 0, 0, 0, 0];
  if (random.once(100)) return ["open", 0, 0, 0, 0];
  const dice = random.below(16);
  if (dice < 5) return access("read", random);
  if (dice < 11) return access("write", random);
  if (dice < 14) {
    const at = random.once(2) ? PUBLIC_BYTES + random.below(512) : random.below(8192);
    return ["scribble", random.below(8), at, random.below(256), 0];
  }
  const what = random.once(8) ? random.pick(WHATS.slice(4)) : "incoming";
  return [what, random.below(8), 0, 0, 0];
}

function generate(random: Random): Accesses {
  const steps = Array.from({ length: 1 + random.below(STEPS) }, () => step(random));
  return { device: random.below(FORMATS.length), pairs: 1 + random.below(2), steps };
}

/** A guest and its NIC, which can return to their initial state. */
class Life {
  readonly bench: Bench;
  /**
   * The initial memory. The guest directs writes of the device, such as
   * a blob, anywhere: they are not faults.
   */
  readonly #memory: Uint8Array;
  readonly #fresh: Uint8Array;

  constructor(device: RingFormat, pairs: number) {
    const config = { rxBufs: BUFS, txBufs: BUFS };
    const guest = { bufferSize: BUFFER_SIZE, features: ALL };
    this.bench = new Bench({ device, pairs, config, mib: MIB, guest });
    this.#memory = this.bench.memory.bytes(MEMORY_START, MIB << 20);
    this.#fresh = this.#memory.slice();
  }

  /** Restarts both, with a NIC as if new. */
  begin(): void {
    const { nic, driver, memory, ports } = this.bench;
    memory.setVisible(true);
    nic.busMasterChanged(true);
    nic.memoryChanged();
    nic.reset();
    this.#memory.set(this.#fresh);
    writeBar(nic, BAR_REGISTERS, REG.EXT_ACK, 4, readBar(nic, BAR_REGISTERS, REG.EXT_OFFER, 4));
    writeBar(nic, BAR_REGISTERS, REG.FEATURES, 4, driver.features);
    driver.open();
    for (const port of ports) {
      port.incoming.length = 0;
      port.sent.length = 0;
      port.sentMetadata.length = 0;
    }
  }
}

class NicSession implements Session<Accesses> {
  readonly #limit = new ResourceLimit("self", WARM_UP_CHECKS);
  /** One per type of NIC: creating one compiles its programs. */
  readonly #lives = FORMATS.map((device) => [1, 2].map((pairs) => new Life(device, pairs)));

  run({ device, pairs, steps }: Accesses): number {
    const life = this.#lives[device]![pairs - 1]!;
    const { bench } = life;
    bench.vectors.length = 0;
    life.begin();
    steps.forEach((each, n) => {
      act(life, each, n);
      bench.local.turn();
    });
    life.begin();
    expectPackets(bench);
    return steps.length;
  }

  check(): Promise<void> {
    return this.#limit.check();
  }

  resources(): Resources {
    return resourcesOf("self");
  }

  close(): void {
    for (const { bench } of this.#lives.flat()) bench.close();
  }
}

function act(life: Life, [what, a, b, c, d]: Step, n: number): void {
  const { bench } = life;
  if (what === "read") {
    const got = readBar(bench.nic, a, b, c);
    expect(
      Number.isInteger(got) && got >= 0 && got <= 0xffffffff,
      () => `a read of ${c} bytes at ${b} of BAR ${a} gives ${got}`,
    );
  } else if (what === "write") writeBar(bench.nic, a, b, c, d);
  else if (what === "scribble") {
    const context = bench.driver.contextOf(a % (2 * bench.ports.length));
    context[b % context.length] = c;
  } else if (what === "incoming") bench.ports[a % bench.ports.length]!.incoming.push(frameOf(n));
  else if (what === "bus master") bench.nic.busMasterChanged(a > 0);
  else if (what === "memory") bench.memory.setVisible(a > 2);
  else if (what === "changed") bench.nic.memoryChanged();
  else if (what === "reset") bench.nic.reset();
  else life.begin();
}

export const registers: Target<Accesses> = {
  name: "registers",
  description: "random accesses to a NIC's registers, doorbells and program window",
  unit: "accesses",
  generate,
  open: () => new NicSession(),
};
