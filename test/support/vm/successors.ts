/** Servers that take the NIC of a guest over, each from the one before. */
import assert from "node:assert/strict";
import { closeServers, type Server, startServer } from "../servers.ts";
import type { NicGuest } from "./nic-guest.ts";

export class Successors {
  readonly #vm: NicGuest;
  #last: Server | null = null;

  constructor(vm: NicGuest) {
    this.#vm = vm;
  }

  /**
   * Starts a server that takes over, and waits until the one before has left.
   * @returns the milliseconds for which no server polled the rings, as the old one says
   */
  async takeOver(): Promise<number> {
    const { nic } = this.#vm;
    const before = this.#last;
    const server = await startServer(["--take-over", nic.socket], { socket: nic.socket });
    this.#last = server;
    assert.equal(before === null ? (await nic.exit).code : await before.ended, 0);
    const log = before?.err() ?? nic.log;
    const pause = /handed over in ([\d.]+) ms/.exec(log)?.[1];
    if (pause === undefined) throw new Error(`no time of a hand-over in: ${log}`);
    return Number(pause);
  }

  /** Ends the last one. Call it when the guest has ended. */
  async close(): Promise<void> {
    try {
      this.#last?.child.kill("SIGTERM");
      if (this.#last !== null) assert.equal(await this.#last.ended, 0);
    } finally {
      closeServers();
    }
  }
}
