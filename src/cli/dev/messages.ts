/** What `bpfhv dev` and the threads of its guests send each other. Plain data. */
import type { ProgramSets, QueueSizes } from "../../devices/program-set.ts";
import type { FlowCounts } from "../../suite/machine.ts";

export type { FlowCounts };

/** A set, as another thread takes it. */
export interface Shipped {
  /** URL of JavaScript. */
  readonly device: string;
  readonly sets: ProgramSets;
  readonly sizes: QueueSizes;
}

export type Order =
  /** Runs the set for a moment in a machine of its own. */
  | { readonly id: number; readonly verb: "try"; readonly set: Shipped; readonly packets: number }
  /** Starts a machine with it; afterwards packets flow until the end. */
  | { readonly id: number; readonly verb: "start"; readonly set: Shipped }
  /** Replaces the set of the machine under load. */
  | { readonly id: number; readonly verb: "swap"; readonly set: Shipped }
  | { readonly id: number; readonly verb: "count" }
  /** Stops the load, waits for the packets on their way, and counts. */
  | { readonly id: number; readonly verb: "stop" };

export interface Counts {
  readonly fromGuest: FlowCounts;
  readonly toGuest: FlowCounts;
  /** Milliseconds of work so far. */
  readonly busyMs: number;
}

export interface Answered {
  readonly id: number;
  readonly result?: Counts;
  /** Milliseconds from loading to the end. */
  readonly ms: number;
  readonly error?: { readonly message: string; readonly stack: string };
}
