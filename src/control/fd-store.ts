/**
 * The descriptors that a service has given to its keeper, by name: sd_pid_notify_with_fds(3). What
 * comes is checked: the service may be of another user, or broken into.
 */
import { close } from "../os/fd.ts";
import { closeInOrder } from "../os/release.ts";

/** A NIC has some twenty, and one for each file of its guest's memory. */
export const MAX_STORED = 4096;
const MAX_NAME = 255;

export interface Assignments {
  /** The service serves. */
  readonly ready: boolean;
}

export class FdStore {
  readonly #fds = new Map<string, number>();
  readonly #complain: (text: string) => void;

  /** @param complain hears what is refused */
  constructor(complain: (text: string) => void) {
    this.#complain = complain;
  }

  get size(): number {
    return this.#fds.size;
  }

  /** By name. */
  get stored(): ReadonlyMap<string, number> {
    return this.#fds;
  }

  /** @param fds this store's from here on */
  take(text: string, fds: readonly number[]): Assignments {
    const lines = new Map(text.split("\n").map((line) => split(line)));
    const name = lines.get("FDNAME") ?? "stored";
    if (lines.get("FDSTOREREMOVE") === "1") this.#remove(name);
    if (lines.get("FDSTORE") === "1" && fds.length === 1) this.#store(name, fds[0]);
    else if (fds.length > 0) {
      this.#refuse(`${fds.length} descriptors that are not one to be stored`, fds);
    }
    return { ready: lines.get("READY") === "1" };
  }

  #store(name: string, fd: number): void {
    if (!isName(name)) return this.#refuse("a descriptor whose name is not one", [fd]);
    this.#remove(name);
    if (this.#fds.size >= MAX_STORED) {
      return this.#refuse(`more than ${MAX_STORED} descriptors: "${name}" is lost in a crash`, [
        fd,
      ]);
    }
    this.#fds.set(name, fd);
  }

  #remove(name: string): void {
    const fd = this.#fds.get(name);
    if (fd === undefined) return;
    this.#fds.delete(name);
    close(fd);
  }

  #refuse(what: string, fds: readonly number[]): void {
    for (const fd of fds) close(fd);
    this.#complain(`the service sent ${what}`);
  }

  /** Ends all connections so that their peers see the end and no reset. */
  close(): void {
    for (const fd of this.#fds.values()) closeInOrder(fd);
    this.#fds.clear();
  }
}

function split(line: string): [string, string] {
  const at = line.indexOf("=");
  return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
}

/** As systemd's fdname_is_valid: no colon, which separates names, and nothing unprintable. */
function isName(name: string): boolean {
  return name.length <= MAX_NAME && /^[ -9;-~]+$/.test(name);
}
