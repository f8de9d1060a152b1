/**
 * The TAP port: one system call per packet, straight from and into guest memory.
 *
 * The kernel refuses a packet with EIO while the interface is down and with EINVAL where it is no
 * Ethernet frame: such a packet is dropped and counted. EBADFD means that the interface was removed.
 */

import type { Batch } from "../memory/index.ts";
import { EAGAIN, EINTR } from "../os/errors.ts";
import { close } from "../os/fd.ts";
import { openTap, type TapOptions } from "../os/tap.ts";
import { read, write } from "../os/vector-io.ts";
import type { Port } from "./port.ts";

/** "File descriptor in bad state"; Node's table of error numbers lacks it. */
const EBADFD = 77;

export class TapPort implements Port {
  readonly name: string;
  readonly fd: number;
  linkUp = true;
  sendBlocked = false;
  receiveDrained = true;
  dropped = 0;

  /** @throws OsError where the interface cannot be had; the message says what to do. */
  constructor(options: TapOptions) {
    const tap = openTap(options);
    this.name = `tap:${tap.name}`;
    this.fd = tap.fd;
  }

  send(batch: Batch): number {
    const { fd } = this;
    this.sendBlocked = false;
    for (let p = 0; p < batch.packets; p++) {
      const result = write(fd, batch.address[p], batch.length[p]);
      if (result > 0) continue;
      if (result === -EAGAIN || result === -EINTR) {
        this.sendBlocked = true;
        return p;
      }
      if (result === -EBADFD) this.linkUp = false;
      this.dropped++;
    }
    return batch.packets;
  }

  receive(batch: Batch): number {
    const { fd } = this;
    for (let p = 0; p < batch.packets; p++) {
      const result = read(fd, batch.address[p], batch.size[p]);
      if (result > 0) {
        batch.length[p] = result;
        continue;
      }
      if (result === -EBADFD) this.linkUp = false;
      this.receiveDrained = true;
      return p;
    }
    this.receiveDrained = false;
    return batch.packets;
  }

  close(): void {
    close(this.fd);
  }
}
