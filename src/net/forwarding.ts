/** Base of ports in front of another port: they pass on everything but `send`. */
import type { Batch } from "../memory/index.ts";
import { RecordError } from "../memory/record.ts";
import type { Port } from "./port.ts";

export abstract class ForwardingPort implements Port {
  protected readonly port: Port;

  constructor(port: Port) {
    this.port = port;
  }

  get name(): string {
    return this.port.name;
  }

  get fd(): number {
    return this.port.fd;
  }

  get linkUp(): boolean {
    return this.port.linkUp;
  }

  abstract get sendBlocked(): boolean;

  get sendHeldMs(): number {
    return this.port.sendHeldMs;
  }

  get receiveHeldMs(): number {
    return this.port.receiveHeldMs;
  }

  get receiveDrained(): boolean {
    return this.port.receiveDrained;
  }

  get dropped(): number {
    return this.port.dropped;
  }

  get failures(): number {
    return this.port.failures;
  }

  get tooLong(): number {
    return this.port.tooLong;
  }

  get sourceAddress(): Uint8Array | null {
    return this.port.sourceAddress ?? null;
  }

  abstract send(batch: Batch): number;

  receive(batch: Batch): void {
    this.port.receive(batch);
  }

  setReceiveOffloads(offloads: number, accepted = offloads): void {
    this.port.setReceiveOffloads(offloads, accepted);
  }

  discard(): void {
    this.port.discard();
  }

  takeNotice(): string {
    return this.port.takeNotice();
  }

  /** A policy without state; see `PolicyPort`. */
  save(): unknown {
    return null;
  }

  prepare(name: string, state: unknown): () => void {
    if (state === null) return () => {};
    throw new RecordError(`${name}: the policy has no state: use null`);
  }

  /** Releases what the policy has of its own; it is not used any more, the port behind it is. */
  release(): void {}

  close(): void {
    this.release();
    this.port.close();
  }
}
