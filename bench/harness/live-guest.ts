/** A guest whose NIC is changed under load: what the bench of live changes does with it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "../../src/cli/ask-nic.ts";
import type { NicSpec } from "../../src/control/spec.ts";
import type { UpgradeReport } from "../../src/nic/upgrade.ts";
import { transferChecked } from "../../test/support/vm/checked-tcp.ts";
import { NicGuest } from "../../test/support/vm/nic-guest.ts";
import { buildNumbered, type Faults, NUMBERED } from "../../test/support/vm/numbered-flows.ts";
import { faultsOf, NO_DROPS, NumberedLoad } from "../../test/support/vm/numbered-load.ts";
import { Successors } from "../../test/support/vm/successors.ts";

/** Every ordered pair of formats, each with itself, too. The last is the first. */
const ROUND = [
  ...["sring_gso", "sring", "sring", "vring_packed", "vring_packed", "sring_gso", "sring_gso"],
  ...["vring_packed", "sring", "sring_gso"],
] as const;
const SIZES = [64, 256, 32, 1024, 128];
/** Of the even flow, whose gaps are measured, and of the one whose packets wait in the rings. */
const BURSTS = [1, 32];
const PINGS = 20;
const LIMIT = { timeoutMs: 60_000 };

export interface Upgrades {
  readonly faults: Faults;
  /** Milliseconds: out and in, of windows with an upgrade and of those without. */
  readonly gaps: readonly number[];
  readonly idleGaps: readonly number[];
  readonly ms: readonly number[];
  readonly cutMs: readonly number[];
  /** Descriptors, by upgrade. */
  readonly inFlight: readonly number[];
}

export class LiveGuest {
  /** Datagrams per second, of each flow and direction. */
  rate = 0;
  /** Round trip without load. */
  readonly rttMs: number;
  readonly #vm: NicGuest;
  readonly #folder: string;
  readonly #program: string;
  readonly #successors: Successors;
  #port = 6000;

  private constructor(vm: NicGuest, folder: string, program: string, rttMs: number) {
    this.#vm = vm;
    this.rttMs = rttMs;
    this.#folder = folder;
    this.#program = program;
    this.#successors = new Successors(vm);
  }

  static async start(): Promise<LiveGuest> {
    const folder = mkdtempSync(join(tmpdir(), "live-"));
    const program = buildNumbered(folder);
    const vm = await NicGuest.start({
      label: "live",
      multiQueue: true,
      serve: ["--queues=2", "--device=sring_gso", "--allow-unverified", "--accept-loss"],
      guest: { smp: 2, extraFiles: { [NUMBERED]: program } },
    });
    await vm.guest.check(NO_DROPS);
    await vm.load();
    await vm.pings(PINGS);
    return new LiveGuest(vm, folder, program, vm.link.pingFromHost(PINGS).rttMs);
  }

  #load(rate: number, isLimited: boolean): Promise<NumberedLoad> {
    this.#port += BURSTS.length;
    const options = { program: this.#program, port: this.#port, bursts: BURSTS };
    return NumberedLoad.start(this.#vm, { ...options, rate, isLimited });
  }

  async #replace(fields: Partial<NicSpec>): Promise<UpgradeReport> {
    await request(this.#vm.nic.socket, { method: "PATCH", body: fields }, LIMIT);
    const { upgrade } = await this.#vm.nic.status();
    if (upgrade?.state !== "done") throw new Error(`upgrade: ${upgrade?.state}`);
    return upgrade;
  }

  /** @returns the last of rising rates at which nothing was lost */
  async search(rates: readonly number[]): Promise<number> {
    let best = 0;
    for (const rate of rates) {
      const load = await this.#load(rate, false);
      await sleep(2000);
      if (faultsOf(await load.end()).lost > 0) break;
      best = rate;
    }
    if (best === 0) throw new Error(`packets were lost at ${rates[0]} a second already`);
    return best;
  }

  /** The load alone, and the round trip under it. */
  async undisturbed(seconds: number): Promise<{ lost: number; rttMs: number }> {
    const load = await this.#load(this.rate, true);
    await sleep(1000 * seconds);
    const { rttMs } = this.#vm.link.pingFromHost(PINGS);
    return { lost: faultsOf(await load.end()).lost, rttMs };
  }

  async upgrades(count: number): Promise<Upgrades> {
    const load = await this.#load(this.rate, true);
    const reports: UpgradeReport[] = [];
    const [gaps, idleGaps]: [number[], number[]] = [[], []];
    await load.gaps(1);
    for (let n = 0; n < count; n++) {
      const device = ROUND[1 + (n % (ROUND.length - 1))]!;
      const [rxBufs, txBufs] = [SIZES[n % SIZES.length]!, SIZES[(n + 2) % SIZES.length]!];
      const report = await this.#replace({ device, rxBufs, txBufs });
      reports.push(report);
      gaps.push(...(await load.gaps(1)));
      await sleep(report.ms);
      idleGaps.push(...(await load.gaps(1)));
    }
    return {
      ...{ faults: faultsOf(await load.end()), gaps, idleGaps },
      ms: reports.map(({ ms }) => ms),
      cutMs: reports.map(({ cutMs }) => cutMs),
      inFlight: reports.map(({ inFlight }) => inFlight),
    };
  }

  /** Sets are replaced while TCP carries so much each way. @throws Error if a byte is wrong */
  async tcp(size: number): Promise<number> {
    let isOver = false;
    const transfer = transferChecked(this.#vm, { upMiB: size, downMiB: size }).finally(() => {
      isOver = true;
    });
    for (let n = 0; !isOver; n++) {
      await this.#replace({ device: ROUND[n % 9]!, rxBufs: 256, txBufs: 256 });
    }
    await transfer;
    return 2 * size;
  }

  async takeOvers(count: number) {
    const load = await this.#load(this.rate, true);
    const [gaps, pauses]: [number[], number[]] = [[], []];
    await load.gaps(1);
    for (let n = 0; n < count; n++) {
      pauses.push(await this.#successors.takeOver());
      gaps.push(...(await load.gaps(1)));
    }
    return { faults: faultsOf(await load.end()), gaps, pauses };
  }

  /** As version 1 of the ABI replaces a set. */
  async restarts(count: number): Promise<Faults> {
    await this.#vm.guest.check("rmmod bpfhv");
    await this.#vm.load("overlap=0");
    await this.#vm.pings(1);
    const load = await this.#load(this.rate, true);
    for (let n = 0; n < count; n++) {
      await load.gaps(1);
      await this.#replace({ device: ROUND[n % 9]!, rxBufs: SIZES[n % SIZES.length]! });
    }
    return faultsOf(await load.end());
  }

  async close(): Promise<void> {
    try {
      await this.#vm.close();
    } finally {
      await this.#successors.close();
      rmSync(this.#folder, { recursive: true, force: true });
    }
  }
}
