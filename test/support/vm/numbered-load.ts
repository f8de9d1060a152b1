/**
 * Numbered datagrams both ways over two queue pairs of a guest, in bursts, under which its NIC is
 * changed. A rate limit keeps descriptors of a burst in the transmit rings, so that a change finds
 * some there: without one the server has sent a burst before it sees what the guest does next.
 */
import { request } from "../../../src/cli/ask-nic.ts";
import type { NicGuest } from "./nic-guest.ts";
import { type Faults, type Flow, NumberedFlows } from "./numbered-flows.ts";
import { patience } from "./time.ts";

/** What a TAP keeps while the guest's receiver gets no CPU. */
const TAP_PACKETS = "10000";
/** Packets that the limit lets through at once. */
const LIMIT_BURST = 4;
/** The shortest that a limit's burst may last. */
const SHORTEST_BURST_S = 0.002;

/**
 * Script for the guest before the interface is up. Its kernel's default, fq_codel, drops packets of
 * a queue that has lasted for a tenth of a second (RFC 8289), which the limit makes it do.
 */
export const NO_DROPS = "echo pfifo_fast >/proc/sys/net/core/default_qdisc";

export interface LoadOptions {
  /** Path of the program on the host. */
  readonly program: string;
  /** Datagrams per second, of each flow and direction. */
  readonly rate: number;
  /** How many of them at once, by flow: a flow for each queue pair. */
  readonly bursts: readonly number[];
  /** The first of as many as there are flows. */
  readonly port: number;
  /** The server sends for the guest as fast as the flows together, and no faster. */
  readonly isLimited: boolean;
}

export class NumberedLoad {
  readonly #vm: NicGuest;
  readonly #flows: readonly NumberedFlows[];

  private constructor(vm: NicGuest, flows: readonly NumberedFlows[]) {
    this.#vm = vm;
    this.#flows = flows;
  }

  static async start(vm: NicGuest, options: LoadOptions): Promise<NumberedLoad> {
    const { port, bursts, isLimited, ...rest } = options;
    vm.netns.exec(["ip", "link", "set", "tap0", "txqueuelen", TAP_PACKETS]);
    if (isLimited) {
      const rate = bursts.length * rest.rate;
      const burst = Math.max(LIMIT_BURST, Math.ceil(rate * SHORTEST_BURST_S));
      await setRate(vm, `tx-packets=${rate}/${burst}`);
    }
    const flows = [];
    for (const [cpu, burst] of bursts.entries()) {
      flows.push(await NumberedFlows.start(vm, { ...rest, burst, port: port + cpu, cpu }));
    }
    return new NumberedLoad(vm, flows);
  }

  /** @returns as `NumberedFlows.gaps`, of so many flows */
  async gaps(flows = this.#flows.length): Promise<number[]> {
    const all = [];
    for (const flow of this.#flows.slice(0, flows)) all.push(...(await flow.gaps()));
    return all;
  }

  /** Ends all flows. @returns what became of them: from the guest, to the guest, … */
  async end(): Promise<Flow[]> {
    for (const flow of this.#flows) await flow.endSending();
    await setRate(this.#vm, "none");
    const ends = [];
    for (const flow of this.#flows) ends.push(...(await flow.stop()));
    return ends;
  }
}

const setRate = (vm: NicGuest, rate: string) =>
  request(vm.nic.socket, { method: "PATCH", body: { rate } }, { timeoutMs: patience(30_000) });

/** What went wrong with all flows of a load together; as `WHOLE` if nothing did. */
export const faultsOf = (ends: readonly Flow[]): Faults => ({
  lost: sumOf(ends, "lost"),
  duplicated: sumOf(ends, "duplicated"),
  damaged: sumOf(ends, "damaged"),
  reordered: sumOf(ends, "reordered"),
  missing: ends.flatMap(({ missing }) => [...missing]),
});

const sumOf = (ends: readonly Flow[], name: Exclude<keyof Flow, "missing">): number =>
  ends.reduce((sum, end) => sum + end[name], 0);
