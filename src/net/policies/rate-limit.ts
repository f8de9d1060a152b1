/**
 * Rate limits of a NIC: bytes and packets a second, in each direction. What the guest sends beyond
 * them stays in its ring, so that the guest waits; what it is sent stays in the port, which drops
 * what it has no room for.
 */
import { LIMITED } from "../../memory/counters.ts";
import type { Batch } from "../../memory/index.ts";
import { readRecord } from "../../memory/record.ts";
import { ForwardingPort } from "../forwarding.ts";
import type { Port } from "../port.ts";
import { PortSpecError } from "../words.ts";
import type { PairCounters, PolicyKind } from "./policy.ts";
import { type DirectionRates, RateMeter } from "./rate-meter.ts";
import type { TokenRate } from "./token-bucket.ts";

export interface RateSpec {
  readonly kind: "rate";
  readonly tx: DirectionRates;
  readonly rx: DirectionRates;
}

/** What the queues of a NIC share. */
export class RateLimits {
  readonly tx: RateMeter;
  readonly rx: RateMeter;

  constructor(spec: RateSpec, clock: () => number = () => performance.now()) {
    this.tx = new RateMeter(clock);
    this.rx = new RateMeter(clock);
    this.set(spec);
  }

  set({ tx, rx }: RateSpec): void {
    this.tx.set(tx);
    this.rx.set(rx);
  }
}

export class RateLimit extends ForwardingPort {
  #sendBlocked = false;
  readonly #tx: RateMeter;
  readonly #rx: RateMeter;
  readonly #counters: PairCounters;
  readonly #txQueue: number;
  readonly #rxQueue: number;

  constructor(port: Port, { tx, rx }: RateLimits, counters: PairCounters) {
    super(port);
    this.#tx = tx;
    this.#rx = rx;
    this.#counters = counters;
    this.#txQueue = tx.join();
    this.#rxQueue = rx.join();
  }

  get sendBlocked(): boolean {
    return this.#sendBlocked;
  }

  override get sendHeldMs(): number {
    return this.#tx.heldMs(this.#txQueue);
  }

  override get receiveHeldMs(): number {
    return this.#rx.heldMs(this.#rxQueue);
  }

  send(batch: Batch): number {
    const { port } = this;
    const tx = this.#tx;
    if (!tx.isLimited) {
      const sent = port.send(batch);
      this.#sendBlocked = port.sendBlocked;
      return sent;
    }
    tx.fill();
    const admitted = tx.admitted(this.#txQueue, batch);
    const sent = admitted === 0 ? 0 : this.#sendFront(batch, admitted);
    this.#sendBlocked = admitted > 0 && port.sendBlocked;
    if (!this.#sendBlocked && sent === admitted && sent < batch.packets) {
      tx.hold(this.#txQueue, batch.length[sent]);
      this.#counters.tx[LIMITED]++;
      this.#sendBlocked = true;
    }
    return sent;
  }

  #sendFront(batch: Batch, count: number): number {
    const { packets, segments } = batch;
    batch.packets = count;
    batch.segments = batch.first[count];
    const sent = this.port.send(batch);
    batch.packets = packets;
    batch.segments = segments;
    this.#tx.take(this.#txQueue, sent, bytesOf(batch, sent));
    return sent;
  }

  override receive(batch: Batch): void {
    const { port } = this;
    const rx = this.#rx;
    if (!rx.isLimited) return port.receive(batch);
    if (!rx.open) rx.fill();
    if (!batch.urgent && (!rx.open || rx.givesWay(this.#rxQueue))) {
      rx.hold(this.#rxQueue, 1);
      this.#counters.rx[LIMITED]++;
      return;
    }
    // Not more than is left as of the last look at the clock: a poll that finds nothing needs none.
    if (!batch.urgent) batch.limit(rx.packetsLeft, rx.bytesLeft);
    port.receive(batch);
    batch.limit(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY);
    if (batch.packets === 0) return;
    rx.fill();
    rx.take(this.#rxQueue, batch.packets, bytesOf(batch, batch.packets));
  }

  override save(): unknown {
    return { version: 1, tx: this.#tx.owed, rx: this.#rx.owed };
  }

  override prepare(name: string, state: unknown): () => void {
    const { tx, rx } = readRecord(name, state, 1, (record) => ({
      tx: record.wholes("tx", 2, 0, MAX_OWED),
      rx: record.wholes("rx", 2, 0, MAX_OWED),
    }));
    return () => {
      this.#tx.owe([tx[0] ?? 0, tx[1] ?? 0]);
      this.#rx.owe([rx[0] ?? 0, rx[1] ?? 0]);
    };
  }
}

function bytesOf({ length }: Batch, packets: number): number {
  let bytes = 0;
  for (let p = 0; p < packets; p++) bytes += length[p];
  return bytes;
}

/** A burst, and what a batch can take beyond it. */
const MAX_OWED = 2 ** 42;
const MAX_RATE = 1e12;
/** A burst lasts at least as long as the loop may sleep too long. */
const SHORTEST_BURST_S = 0.002;
const DEFAULT_BURST_S = 0.02;
const FRAME = 1514;
const NAMES = ["tx-bytes", "tx-packets", "rx-bytes", "rx-packets"] as const;
const FACTORS: Readonly<Record<string, number>> = { "": 1, k: 1e3, M: 1e6, G: 1e9 };

export const RATE_USAGE =
  "a list of tx-bytes, tx-packets, rx-bytes, rx-packets, each =RATE[/BURST], a second (k, M, G: " +
  "10^3, 10^6, 10^9), as in tx-bytes=125M/1M,rx-packets=50k; or none";

export const rateLimit: PolicyKind<RateSpec, RateLimits> = {
  name: "rate",
  usage: "rate:{tx|rx}-{bytes|packets}=RATE[/BURST][,…]",
  parse(rules) {
    const rates = new Map<string, TokenRate>();
    for (const word of rules.split(",")) {
      const [name, value = ""] = word.split(/=(.*)/s);
      if (!NAMES.some((each) => each === name) || rates.has(name)) {
        throw refused(`"${word}": use each of ${NAMES.join(", ")} at most once, as in rx-bytes=1M`);
      }
      rates.set(name, rateOf(name, value));
    }
    const of = (direction: string): DirectionRates => ({
      bytes: rates.get(`${direction}-bytes`) ?? null,
      packets: rates.get(`${direction}-packets`) ?? null,
    });
    return { kind: "rate", tx: of("tx"), rx: of("rx") };
  },
  share(spec, before) {
    before?.set(spec);
    return before ?? new RateLimits(spec);
  },
  open: (_spec, port, counters, limits) => new RateLimit(port, limits, counters),
};

function rateOf(name: string, value: string): TokenRate {
  const [rateWord, burstWord] = value.split(/\/(.*)/s);
  const rate = numberOf(name, rateWord);
  const one = name.endsWith("bytes") ? FRAME : 1;
  const least = Math.max(one, Math.ceil(rate * SHORTEST_BURST_S));
  if (burstWord === undefined) {
    return { rate, burst: Math.max(2 * one, Math.ceil(rate * DEFAULT_BURST_S)) };
  }
  const burst = numberOf(name, burstWord);
  if (burst >= least) return { rate, burst };
  throw refused(`${name}: burst ${burstWord}: use at least ${least}, so that the rate is reached`);
}

function numberOf(name: string, word: string): number {
  const [, digits, unit] = /^(\d{1,15}(?:\.\d{1,6})?)([kMG]?)$/.exec(word) ?? [];
  const number = digits === undefined ? 0 : Math.floor(Number(digits) * FACTORS[unit]);
  if (number >= 1 && number <= MAX_RATE) return number;
  throw refused(`${name}: "${word}": use a number from 1 to 1000G, as in 500, 12.5M or 1G`);
}

function refused(why: string): PortSpecError {
  return new PortSpecError(`rate: ${why}`);
}
