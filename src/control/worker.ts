/**
 * The harness of every worker: one thread that owns one NIC, whatever its frontend. Ports, queue
 * pairs, loop, log and the requests of the main thread are here; a frontend adds itself (`Served`).
 */
import { type MessagePort, parentPort } from "node:worker_threads";
import type { RingFormat } from "../devices/format.ts";
import { loadFormat } from "../devices/registry.ts";
import { DEFAULT_SPIN_US, Loop } from "../engine/loop.ts";
import { QueuePair } from "../engine/pair.ts";
import { Complaints } from "../frontends/complaints.ts";
import type { Frontend, Parts, Served, Verbs } from "../frontends/served.ts";
import type { PortSpec } from "../net/create.ts";
import type { PolicySpec } from "../net/policies/index.ts";
import type { RateSpec } from "../net/policies/rate-limit.ts";
import { NullPort } from "../net/synthetic.ts";
import { keepLedger, type Ledger } from "../os/ledger.ts";
import { emptyBoundingSet, forbidNewPrivileges, setTimeSlice } from "../os/process.ts";
import { Keeping, type KeepingTask } from "./keeping.ts";
import { LineLimit, limitedLog } from "./line-limit.ts";
import { LoadedFormats } from "./loaded-formats.ts";
import type { Request, ToMain } from "./messages.ts";
import { startPulse } from "./pulse.ts";
import { takeTask } from "./waiting-worker.ts";
import { WorkerControl } from "./worker-control.ts";
import { WorkerPorts } from "./worker-ports.ts";
import { WorkerTransfer } from "./worker-transfer.ts";

/** What every worker needs; a frontend's options come on top. */
export interface WorkerOptions {
  /** What `loadFormat` loads the ring format by. */
  readonly device: string;
  readonly port: PortSpec;
  /** See `WorkerPortsOptions`. */
  readonly policies?: readonly PolicySpec[];
  readonly rate?: RateSpec | null;
  /** See `WorkerPortsOptions`. */
  readonly linkUp?: boolean;
  /** The process becomes another user once everything is open. */
  readonly losesRights?: boolean;
  /** The NIC is another process's: client, sockets and ports come with `take-over`. */
  readonly takesOver?: boolean;
  /** Its state is kept for after a crash. */
  readonly kept?: KeepingTask;
  /** Packets at the ports carry metadata. Default: true, since a later set may have offloads. */
  readonly metadata?: boolean;
  /** See `LoopOptions`. */
  readonly spinUs?: number;
  readonly pauseUs?: number;
}

/** What the handle adds. */
interface Wiring {
  /** eventfd that the main thread signals after each request. */
  readonly wakeFd: number;
  /** For what this thread opens: the main thread releases what is left after its end. */
  readonly ledger: Ledger;
}

type Task<Options> = Options & WorkerOptions & Wiring;

interface Harnessed<Options> {
  readonly frontend: Frontend<Options>;
  readonly task: Task<Options>;
  readonly main: MessagePort;
  readonly pulse: Int32Array;
  readonly format: RingFormat;
  readonly ports: WorkerPorts;
  readonly keeping: Keeping | null;
  /** Packets at the ports carry it. */
  readonly metadata: boolean;
}

/** The shortest that Linux grants. */
const TIME_SLICE_NS = 100_000;
/** For the counters; all else is kept when it changes. */
const KEEP_MS = 1000;
/** Verbs that change nothing. */
const QUESTIONS: ReadonlySet<string> = new Set(["status", "set-report", "sketch"]);
/** Lines a second that a guest can cause with `backend -v -v`. */
const TRACES_PER_SECOND = 1000;

/**
 * Serves one NIC on this thread: from its task, which the main thread sends, until the main thread
 * ends it. Reports a failure to the main thread.
 */
export async function runWorker<Options>(frontend: Frontend<Options>): Promise<void> {
  const main = parentPort!;
  // no_new_privs is per thread, and this thread started before the main thread set it.
  forbidNewPrivileges();
  const pulse = startPulse();
  const task = takeTask<Task<Options>>(main);
  keepLedger(task.ledger);
  if (task.losesRights === true) emptyBoundingSet();
  const tell = (message: ToMain): void => main.postMessage(message);
  try {
    const format = await loadFormat(task.device);
    const problem = await serve({ frontend, task, main, pulse, format });
    if (problem === "") tell({ kind: "stopped" });
    else tell({ kind: "failed", message: problem, expected: true, stack: "" });
  } catch (error) {
    const { message, code, stack } = error as Error & { code?: string };
    tell({ kind: "failed", message, expected: code !== undefined, stack: stack ?? "" });
  }
}

/** Opens the ports and runs the loop. @returns why the loop ended; "": it was asked to */
async function serve<Options>(
  parts: Omit<Harnessed<Options>, "ports" | "metadata" | "keeping">,
): Promise<string> {
  const { frontend, task, main } = parts;
  const pairs = frontend.pairs(task);
  const { metadata = true } = task;
  const log = (level: "info" | "warn", text: string): void =>
    main.postMessage({ kind: "log", level, text } satisfies ToMain);
  const keeping = task.kept === undefined ? null : new Keeping({ task: task.kept, log });
  const progress = keeping && { progressOf: (pair: number) => keeping.progressOf(pair) };
  const ports = new WorkerPorts({ ...task, pairs, metadata, ...progress });
  try {
    return await new Harness({ ...parts, ports, keeping, metadata }).run();
  } finally {
    ports.close();
  }
}

class Harness<Options> {
  readonly #main: MessagePort;
  readonly #ports: WorkerPorts;
  readonly #pairs: readonly QueuePair[];
  readonly #served: Served;
  readonly #control: WorkerControl;
  readonly #loop: Loop;
  readonly #verbs: Verbs;
  readonly #log = limitedLog((line) => this.#tell(line));
  readonly #traces = new LineLimit<string>(
    TRACES_PER_SECOND,
    (line) => this.#tell({ kind: "print", text: `${line}\n` }),
    (suppressed) => `suppressed ${suppressed} more lines`,
  );
  readonly #complaints: Complaints;
  #portsUp: boolean;
  #problem = "";
  readonly #formats = new LoadedFormats();
  readonly #transfer: WorkerTransfer;
  readonly #pulse: Int32Array;
  #isStopping = false;
  #keptAt = 0;
  readonly #keeping: Keeping | null;
  readonly #takesOver: boolean;

  constructor(harnessed: Harnessed<Options>) {
    const { frontend, task, main, pulse, format, ports, keeping, metadata } = harnessed;
    this.#main = main;
    this.#keeping = keeping;
    this.#pulse = pulse;
    this.#ports = ports;
    this.#pairs = this.#makePairs();
    const takesOver = task.takesOver ?? false;
    this.#takesOver = takesOver;
    const journal = keeping && { journal: keeping.journal };
    const parts = { ...this.#parts(format), ...journal, metadata, takesOver };
    this.#served = frontend.serve(task, parts);
    this.#transfer = new WorkerTransfer({
      ...{ served: this.#served, ports, pairs: this.#pairs, loop: () => this.#loop, keeping },
      twin: () => frontend.serve(task, { ...this.#parts(format), ...unconnected(this.#pairs) }),
    });
    this.#control = new WorkerControl(this.#served.control, main, task.wakeFd, (request) =>
      this.#carryOut(request),
    );
    this.#verbs = { ...this.#ownVerbs(), ...this.#transfer.verbs, ...this.#served.verbs };
    this.#complaints = new Complaints(this.#served.complaints, (text) => this.#say("warn", text));
    this.#portsUp = this.#arePortsUp();
    this.#loop = new Loop({
      ...{ pairs: this.#pairs, control: this.#control, pulse },
      ...{ spinUs: task.spinUs ?? DEFAULT_SPIN_US, pauseUs: task.pauseUs },
      housekeeping: () => this.#housekeeping(),
    });
  }

  #makePairs(): QueuePair[] {
    const { ports, counters } = this.#ports;
    return ports.map((port, i) => {
      const fire = (vector: number): void => this.#served.fire(vector);
      const vectors = { rxVector: i, txVector: ports.length + i };
      const { rx: rxCounters, tx: txCounters } = counters[i];
      const pair = new QueuePair({ port, rxCounters, txCounters, ...vectors, fire });
      if (this.#keeping !== null) pair.progress = this.#keeping.progressOf(i);
      return pair;
    });
  }

  #parts(format: RingFormat): Omit<Parts, "metadata" | "takesOver"> {
    return {
      ...{ format, pairs: this.#pairs },
      formatOf: (device) => this.#formats.get(device),
      log: (level, text) => this.#say(level, text),
      print: (text) => this.#tell({ kind: "print", text }),
      trace: (line) => this.#traces.line(line),
      stop: (problem) => {
        this.#problem = problem;
        this.#loop.stop();
      },
    };
  }

  #ownVerbs(): Verbs {
    return {
      stop: () => {
        this.#isStopping = true;
        this.#loop.stop();
      },
      status: () => {
        const crash = this.#keeping && { crash: this.#keeping.crash };
        return { ...this.#served.status(this.#loop.loopStats), ...crash };
      },
      // The loop pauses, because modules load in turns of the event loop only.
      "load-device": (device: string) => {
        if (this.#formats.want(device)) this.#loop.stop();
      },
      "set-port": (spec: PortSpec) => {
        this.#ports.exchange(spec, this.#pairs, this.#loop);
        this.#linkWasSet();
      },
      "set-link": (up: boolean) => {
        this.#ports.setLink(up, this.#pairs);
        this.#linkWasSet();
      },
      "set-spin": (us: number) => this.#loop.setSpin(us),
      "set-policies": (policies: readonly PolicySpec[]) =>
        this.#ports.setPolicies(policies, this.#pairs),
      "set-rate": (rate: RateSpec | null) => this.#ports.setRate(rate, this.#pairs),
    };
  }

  /** The link of another port is not an event of the old one. */
  #linkWasSet(): void {
    this.#served.followLink();
    this.#portsUp = this.#arePortsUp();
  }

  /** Serves until the loop ends. @returns as `serve` */
  async run(): Promise<string> {
    // Packets wait for this thread, which needs a short time only: a kernel that can runs it as
    // soon as it wakes.
    setTimeSlice(TIME_SLICE_NS);
    if (this.#keeping !== null) this.#keep(this.#keeping);
    this.#tell({ kind: "ready" });
    try {
      do {
        await this.#formats.load();
        if (this.#transfer.stopped) this.#pause();
        // What came behind a request to load needs what was loaded.
        this.#control.receive(() => this.#formats.wanted);
        if (this.#isStopping) break;
        if (!this.#formats.wanted && !this.#transfer.stopped) this.#loop.run();
      } while (this.#formats.wanted || this.#transfer.stopped);
    } finally {
      if (this.#transfer.frozen) this.#served.transfer?.leave();
      else this.#served.close();
      this.#loop.close();
    }
    return this.#problem;
  }

  /** A NIC that is taken over is kept from `go-on` on. */
  #keep(keeping: Keeping): void {
    keeping.save = (fds) => this.#transfer.saveForCrash(fds);
    if (!this.#takesOver) keeping.start();
  }

  /** Until the main thread says how it goes on. */
  #pause(): void {
    this.#control.waitWhile(() => this.#transfer.frozen && !this.#isStopping, this.#pulse);
    this.#transfer.stopped = false;
    this.#portsUp = this.#arePortsUp();
  }

  #carryOut({ id, verb, body }: Request): void {
    try {
      this.#transfer.check(verb);
      if (!Object.hasOwn(this.#verbs, verb)) throw new Error(`this NIC has no verb "${verb}"`);
      const result = this.#verbs[verb](body as never);
      if (!QUESTIONS.has(verb) && !this.#transfer.frozen) this.#keeping?.snapshot();
      this.#tell({ kind: "reply", id, result, error: null });
    } catch (error) {
      this.#tell({ kind: "reply", id, result: undefined, error: (error as Error).message });
    }
  }

  #housekeeping(): void {
    const now = performance.now();
    this.#control.receive(() => this.#formats.wanted);
    this.#complaints.tick(now);
    this.#log.tick(now);
    this.#traces.tick(now);
    for (const text of this.#ports.notices()) this.#say("warn", text);
    this.#served.followLink();
    this.#served.housekeeping(now);
    this.#lookAtPorts();
    if (now - this.#keptAt < KEEP_MS) return;
    this.#keptAt = now;
    this.#keeping?.snapshot();
  }

  #arePortsUp(): boolean {
    return this.#pairs.every((pair) => pair.port.linkUp);
  }

  #lookAtPorts(): void {
    // Ports that were taken over are not news.
    if (this.#transfer.stopped) return;
    const up = this.#arePortsUp();
    if (up === this.#portsUp) return;
    this.#portsUp = up;
    this.#say("warn", `${this.#pairs[0].port.name} ${up ? "is back" : "is gone"}`);
  }

  #say(level: "info" | "warn", text: string): void {
    this.#log.line({ kind: "log", level, text });
  }

  #tell(message: ToMain): void {
    this.#main.postMessage(message);
  }
}

/** For a NIC that is connected to nothing. */
function unconnected({ length }: readonly QueuePair[]) {
  const port = new NullPort();
  const vectors = { rxVector: 0, txVector: 0, fire: () => {} };
  const pairs = Array.from({ length }, () => new QueuePair({ port, ...vectors }));
  return { pairs, metadata: false, takesOver: true, log: () => {} };
}
