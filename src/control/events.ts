/** What happens to the NICs of a process, for those who listen at `GET /v1/events`. */

export interface Event {
  readonly kind: "changed" | "log" | "ended";
  readonly nic: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export type Listener = (event: Event, id: number) => void;

/** Passes events on as they happen; those of before are not kept. */
export class Events {
  readonly #listeners = new Set<Listener>();
  #id = 0;

  publish(kind: Event["kind"], nic: string, data: Event["data"]): void {
    this.#id++;
    for (const listener of this.#listeners) listener({ kind, nic, data }, this.#id);
  }

  /** @returns ends it */
  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get listeners(): number {
    return this.#listeners.size;
  }
}
