/**
 * A port: where packets go to and come from. One port object per queue pair; the host's steering
 * among them is the port's business (a multi-queue TAP answers on the queue a flow last sent on).
 */
import type { Batch } from "../memory/index.ts";

export interface Port {
  /** For people: `tap:tap0`. */
  readonly name: string;
  /**
   * Readable when packets wait, writable when there is room again; -1 if it cannot be waited for.
   */
  readonly fd: number;
  /** False: the port is gone for good. */
  readonly linkUp: boolean;
  /** The last `send` stopped because the port would have blocked: wait until `fd` is writable. */
  readonly sendBlocked: boolean;
  /** The last `receive` took all there was, and without `fd` being readable no more will come. */
  readonly receiveDrained: boolean;
  /** Packets that it consumed without passing them on, ever; `tooLong` not among them. */
  readonly dropped: number;
  /** Times, ever, that it could not receive for another reason than that nothing was there. */
  readonly failures: number;
  /** Received packets, ever, that were longer than the guest has room for. */
  readonly tooLong: number;
  /**
   * Sends packets from the front of the batch. @returns how many were consumed: sent, or dropped.
   */
  send(batch: Batch): number;
  /** Receives into the batch's free segments while `nextBuffer()` is not 0. */
  receive(batch: Batch): void;
  /**
   * OFFLOAD_* that received packets may need of the guest from now on. Packets that need others are
   * dropped.
   */
  setReceiveOffloads(offloads: number): void;
  /** Counts the packets that it holds for the guest as dropped: the guest takes no more from it. */
  discard(): void;
  /** Messages for the log since the last call; "": none. */
  takeNotice(): string;
  close(): void;
}

/** The smallest plain object that says which port to open; each kind adds its options. */
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
}
