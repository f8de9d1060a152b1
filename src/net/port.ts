/**
 * A port: where packets go to and come from. One port object per queue pair; steering between them
 * is the port's task (a multi-queue TAP answers on the queue that a flow last sent on).
 */
import type { Batch } from "../memory/index.ts";

export interface Port {
  /** For display: `tap:tap0`. */
  readonly name: string;
  /**
   * Readable when packets wait, writable when there is room again; -1: polling is not supported.
   */
  readonly fd: number;
  /** False if nothing can be sent or received: the link is down, or the interface was removed. */
  readonly linkUp: boolean;
  /** See `PROGRESS`; a port that has it counts there. */
  progress?: Int32Array;
  /** The last `send` stopped because the port would have blocked: wait until `fd` is writable. */
  readonly sendBlocked: boolean;
  /**
   * Milliseconds until a limit lets packets through that the last `send` left; 0: none holds them.
   * While a limit holds them `sendBlocked` is true, and `fd` does not tell when that ends.
   */
  readonly sendHeldMs: number;
  /** As `sendHeldMs`, of `receive`. */
  readonly receiveHeldMs: number;
  /** The last `receive` took all packets; more arrive only after `fd` is readable. */
  readonly receiveDrained: boolean;
  /** Total of packets that were consumed and dropped, without `tooLong`. */
  readonly dropped: number;
  /** Total of failed receives, other than for lack of packets. */
  readonly failures: number;
  /** Total of received packets that were longer than the guest's buffers. */
  readonly tooLong: number;
  /** The only source address that the port sends from; null or undefined: any. */
  readonly sourceAddress?: Uint8Array | null;
  /** Sends packets from the front of the batch. @returns how many were consumed: sent or dropped */
  send(batch: Batch): number;
  /** Receives into the batch's free segments while `nextBuffer()` is not 0. */
  receive(batch: Batch): void;
  /**
   * Sets the OFFLOAD_* that received packets may need of the guest.
   * @param accepted packets that need others than these are dropped; more than `offloads` while the
   * port may hold packets of before
   */
  setReceiveOffloads(offloads: number, accepted?: number): void;
  /** Drops and counts the packets that it holds for the guest, before it is replaced. */
  discard(): void;
  /** Messages for the log since the last call; "": none. */
  takeNotice(): string;
  close(): void;
}

/** A port as plain data; each kind adds its options. */
export interface AnyPortSpec {
  readonly kind: string;
}

export interface PortContext {
  /** Several queue pairs: each opens one port of the same spec. */
  readonly multiQueue: boolean;
  /** Packets of the device carry offload metadata. */
  readonly metadata: boolean;
}

/** A kind of port: what its file exports for the list in `create.ts`. */
export interface PortKind<S extends AnyPortSpec = AnyPortSpec> {
  /** The word before the colon. */
  readonly name: S["kind"];
  /** The words, for help texts. */
  readonly usage: string;
  /**
   * Reads the words behind the colon, which commas separate, into plain data.
   * @throws PortSpecError
   */
  parse(words: readonly string[]): S;
  /** @throws OsError, PortSpecError */
  open(spec: S, context: PortContext): Port;
  /**
   * What another process needs to go on with an open port: its descriptor, or nothing. Missing: it
   * would begin anew, or lose what the port holds.
   */
  readonly continues?: "by descriptor" | "by itself";
  /** Opens a port that continues by descriptor. @throws OsError; then `fd` stays the caller's */
  adopt?(spec: S, context: PortContext, fd: number): Port;
}
