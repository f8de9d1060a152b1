/** What `bpfhv dev` replaces sets of: a guest in this process, or a NIC served elsewhere. */
import { pathToFileURL } from "node:url";
import { DROP_COUNTERS } from "../../memory/counters.ts";
import { askNic, request } from "../ask-nic.ts";
import type { Built } from "./build.ts";
import { GuestHandle } from "./guest-handle.ts";
import type { FlowCounts } from "./messages.ts";

/** Packets since the start, and the milliseconds of work that they took. */
export interface Sample {
  readonly packets: number;
  readonly lost: number;
  readonly repeated: number;
  readonly damaged: number;
  readonly busyMs: number;
}

export interface Target {
  readonly name: string;
  start(built: Built): Promise<void>;
  /** @throws Error that says why the set was not taken: the one of before goes on */
  swap(built: Built): Promise<void>;
  count(): Promise<Sample>;
  /** With the packets that were on their way. */
  stop(): Promise<Sample>;
  /** Settles if it ends by itself. */
  readonly died: Promise<Error>;
}

const START_MS = 20_000;
const SWAP_MS = 8000;
const COUNT_MS = 5000;
/** A server compiles and proves the set itself. */
const SERVED_MS = 60_000;

const set = ({ device, sets, sizes }: Built) => ({ device, sets, sizes });

export class LocalTarget implements Target {
  readonly name = "a guest in this process";
  readonly #guest = new GuestHandle();

  get died(): Promise<Error> {
    return this.#guest.died;
  }

  async start(built: Built): Promise<void> {
    await this.#guest.ask({ verb: "start", set: set(built) }, START_MS);
  }

  async swap(built: Built): Promise<void> {
    await this.#guest.ask({ verb: "swap", set: set(built) }, SWAP_MS);
  }

  async count(): Promise<Sample> {
    return sampleOf(await this.#guest.ask({ verb: "count" }, COUNT_MS));
  }

  async stop(): Promise<Sample> {
    const last = await this.#guest.ask({ verb: "stop" }, COUNT_MS).catch(() => undefined);
    await this.#guest.end();
    return last === undefined ? NOTHING : sampleOf(last);
  }
}

const NOTHING: Sample = { packets: 0, lost: 0, repeated: 0, damaged: 0, busyMs: 0 };

function sampleOf({ result }: Awaited<ReturnType<GuestHandle["ask"]>>): Sample {
  if (result === undefined) return NOTHING;
  const { fromGuest, toGuest, busyMs } = result;
  const sum = (name: keyof FlowCounts): number => fromGuest[name] + toGuest[name];
  return {
    ...{ packets: sum("arrived"), lost: sum("lost"), repeated: sum("repeated") },
    ...{ damaged: sum("damaged"), busyMs },
  };
}

/** A NIC of `bpfhv serve`, whose guest may be anything; its host counts what it drops. */
export class ServedTarget implements Target {
  readonly name: string;
  readonly died = new Promise<Error>(() => {});
  readonly #socket: string;
  readonly #path: string;
  #version = 0;

  constructor(socket: string, path: string) {
    this.name = `the NIC on ${socket}`;
    this.#socket = socket;
    this.#path = path;
  }

  start(built: Built): Promise<void> {
    return this.swap(built);
  }

  async swap({ sizes }: Built): Promise<void> {
    // Another name each time: the server would find nothing to change.
    const device = `${pathToFileURL(this.#path).href}?${process.pid}.${++this.#version}`;
    const body = { device, ...sizes };
    await request(this.#socket, { method: "PATCH", body }, { timeoutMs: SERVED_MS });
  }

  async count(): Promise<Sample> {
    const { queues } = await askNic(this.#socket);
    const sum = (names: readonly string[]): number =>
      queues.reduce((total, { counters }) => {
        for (const [name, value] of Object.entries(counters)) {
          if (names.includes(name)) total += value;
        }
        return total;
      }, 0);
    const packets = sum(["packets"]);
    return {
      packets,
      lost: sum(DROP_COUNTERS),
      repeated: 0,
      damaged: 0,
      busyMs: performance.now(),
    };
  }

  stop(): Promise<Sample> {
    return this.count().catch(() => NOTHING);
  }
}
