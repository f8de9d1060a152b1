/**
 * A policy between ring and port: it sees the batches of both directions, and passes on, changes or
 * drops packets. Opened, it is a port in front of another one (`ForwardingPort`).
 */
import type { QueueCounters } from "../../memory/counters.ts";
import type { Port } from "../port.ts";

/** A policy as plain data; each kind adds its options. */
export interface AnyPolicySpec {
  readonly kind: string;
}

/** Of a queue pair: what a policy drops or holds back is counted there. */
export interface PairCounters {
  readonly tx: QueueCounters;
  readonly rx: QueueCounters;
}

export interface PolicyContext {
  /** The NIC's own address; null if only the VMM knows it. */
  readonly mac: Uint8Array | null;
}

/** A kind of policy: what its file exports for the list in `index.ts`. */
export interface PolicyKind<S extends AnyPolicySpec = AnyPolicySpec, Shared = unknown> {
  readonly name: S["kind"];
  /** The words, for help texts. */
  readonly usage: string;
  /** Reads rules into plain data. @throws PortSpecError */
  parse(rules: string, context: PolicyContext): S;
  /**
   * What the queue pairs of a NIC share, made once for all of them.
   * @param before what it made for other rules of the same NIC, which these replace
   */
  share?(spec: S, before: Shared | undefined): Shared;
  /** @param shared what `share` made */
  open(spec: S, port: Port, counters: PairCounters, shared: Shared): PolicyPort;
}

/** A policy in front of a port. Its settings from the spec are not part of its state. */
export interface PolicyPort extends Port {
  /** Releases what the policy has of its own: the port behind it is used without it. */
  release(): void;
  /** The state as plain data; null if it has none. */
  save(): unknown;
  /**
   * Checks a state that `save` gave, which may come from a file.
   * @param name of it, for messages
   * @returns the function that restores it, which does not fail
   * @throws RecordError
   */
  prepare(name: string, state: unknown): () => void;
}
