/**
 * A port that takes another one's place: what is sent goes to the new one, and what the old one
 * still holds for the guest is received first, as far as the guest has buffers.
 */
import type { Batch } from "../memory/index.ts";
import { ForwardingPort } from "./forwarding.ts";
import type { Port } from "./port.ts";

/** The longest queue of a TAP is a thousand packets; a source has no end. */
const MAX_LEFT = 2048;

export class SucceedingPort extends ForwardingPort {
  #old: Port | null;
  readonly #over: () => void;
  #left = MAX_LEFT;
  /** Of the old port when it was closed. */
  #counts = { dropped: 0, tooLong: 0, failures: 0 };

  /** @param over called when the old port is closed: `port` may be used without this one */
  constructor(port: Port, old: Port, over: () => void) {
    super(port);
    this.#old = old;
    this.#over = over;
  }

  get sendBlocked(): boolean {
    return this.port.sendBlocked;
  }

  send(batch: Batch): number {
    return this.port.send(batch);
  }

  override receive(batch: Batch): void {
    const old = this.#old;
    if (old === null) return this.port.receive(batch);
    const { urgent } = batch;
    // A limit holds nothing back, for there is no later.
    batch.urgent = true;
    old.receive(batch);
    batch.urgent = urgent;
    this.#left -= batch.packets;
    if (old.receiveDrained || this.#left <= 0) this.leave();
  }

  /** Drops and counts what the old port still holds, and closes it. */
  leave(): void {
    const old = this.#old;
    if (old === null) return;
    old.discard();
    this.#counts = { dropped: old.dropped, tooLong: old.tooLong, failures: old.failures };
    this.#old = null;
    old.close();
    this.#over();
  }

  /** The new port is to be asked when the old one is drained. */
  override get receiveDrained(): boolean {
    return this.#old === null && this.port.receiveDrained;
  }

  override get receiveHeldMs(): number {
    return this.#old === null ? this.port.receiveHeldMs : 0;
  }

  override get dropped(): number {
    return this.port.dropped + (this.#old ?? this.#counts).dropped;
  }

  override get tooLong(): number {
    return this.port.tooLong + (this.#old ?? this.#counts).tooLong;
  }

  override get failures(): number {
    return this.port.failures + (this.#old ?? this.#counts).failures;
  }

  override setReceiveOffloads(offloads: number, accepted = offloads): void {
    this.#old?.setReceiveOffloads(offloads, accepted);
    this.port.setReceiveOffloads(offloads, accepted);
  }

  override discard(): void {
    this.leave();
    this.port.discard();
  }

  override takeNotice(): string {
    return this.#old?.takeNotice() || this.port.takeNotice();
  }

  override close(): void {
    this.leave();
    this.port.close();
  }
}
