/**
 * What a frontend is to the harness of its worker (control/worker.ts), which owns thread, ports,
 * queue pairs, loop, log and messages.
 */
import type { RingFormat } from "../devices/format.ts";
import type { ProgramSets } from "../devices/program-set.ts";
import type { Control } from "../engine/loop.ts";
import type { QueuePair } from "../engine/pair.ts";
import type { NicStatus } from "../nic/status.ts";
import type { MessageJournal } from "../vfio-user/journal.ts";
import type { Complaint } from "./complaints.ts";
import type { Transfer } from "./transfer.ts";

/** Another set for a running NIC, from the main thread: plain data. */
export interface SetOrder {
  /** What the worker has loaded the ring format by. */
  readonly device: string;
  readonly rxBufs: number;
  readonly txBufs: number;
  readonly features: number;
  readonly sets: ProgramSets;
  /** How long the guest's driver may take. */
  readonly limitMs: number;
  /** A driver without OVERLAP may be asked to restart its interface. */
  readonly mayLose: boolean;
}

/** What a frontend is made of. */
export interface Parts {
  readonly format: RingFormat;
  /** Ports carry metadata, so formats may offer features. */
  readonly metadata: boolean;
  /** For another process that goes on after a crash of this one. */
  readonly journal?: MessageJournal;
  /** The NIC is another process's: its client, sockets and ports come from there. */
  readonly takesOver: boolean;
  /** A ring format that was loaded since. @throws Error if it was not */
  readonly formatOf: (device: string) => RingFormat;
  /** Receive queue `i` fires vector `i`, transmit queue `i` vector `pairs.length + i`. */
  readonly pairs: readonly QueuePair[];
  /** Logs a line; lines beyond ten a second are counted only. */
  readonly log: (level: "info" | "warn", text: string) => void;
  /** Writes text to standard output. */
  readonly print: (text: string) => void;
  /** Writes a line to standard output; lines beyond a thousand a second are counted only. */
  readonly trace: (line: string) => void;
  /** Ends the loop. @param problem becomes the NIC's failure; "": an orderly end */
  readonly stop: (problem: string) => void;
}

/**
 * What the main thread may ask for, by name: takes what was sent along, which the main thread has
 * checked, and returns plain data. An error that it throws is the answer, and must leave everything
 * as it was.
 */
export type Verbs = Readonly<Record<string, (body: never) => unknown>>;

/** A NIC that is being served. */
export interface Served {
  readonly control: Control;
  readonly verbs: Verbs;
  /** Refusals and losses to log when their counters grow. */
  readonly complaints: readonly Complaint[];
  /** Missing: another process cannot take the NIC over. */
  readonly transfer?: Transfer;
  /** Interrupts the guest. */
  fire(vector: number): void;
  /** @param loop statistics */
  status(loop: Readonly<Record<string, number>>): NicStatus;
  /** Called when ports have been exchanged, and by housekeeping: the link may have changed. */
  followLink(): void;
  /** Called when something besides packets woke the loop, and once a second. */
  housekeeping(now: number): void;
  /** Releases the client after the loop's end, before ports are closed. */
  close(): void;
}

/** A kind of frontend: how to make a served NIC from the options of its worker. */
export interface Frontend<Options> {
  /** Queue pairs, and so ports, that it needs. */
  pairs(options: Options): number;
  serve(options: Options, parts: Parts): Served;
}
