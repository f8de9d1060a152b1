/**
 * A generation: ring format, queue sizes, offered features and program sets, which fit together. A
 * NIC runs one. Replacing it means to make another one beside it.
 */
import { buildBlob, type ProgramForm, type ProgramSet } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import type { ProgramSets } from "../devices/program-set.ts";
import type { QueuePair } from "../engine/pair.ts";

export interface GenerationOptions {
  /** Never 0. */
  readonly id: number;
  readonly format: RingFormat;
  readonly rxBufs: number;
  readonly txBufs: number;
  /** Feature bits that the guest may select. */
  readonly features: number;
}

export class Generation {
  id: number;
  readonly format: RingFormat;
  readonly rxBufs: number;
  readonly txBufs: number;
  readonly features: number;
  #sets: ProgramSets | null = null;
  readonly #blobs = new Map<ProgramForm, Uint8Array>();

  constructor({ id, format, rxBufs, txBufs, features }: GenerationOptions) {
    this.id = id;
    this.format = format;
    this.rxBufs = rxBufs;
    this.txBufs = txBufs;
    this.features = features;
  }

  /** Adds the programs, which are compiled and verified elsewhere. A guest cannot attach before. */
  ship(sets: ProgramSets): void {
    this.#sets = sets;
    this.#blobs.clear();
  }

  /** Takes the number that another process gave it; the blob contains it. */
  renumber(id: number): void {
    this.id = id;
    this.#blobs.clear();
  }

  get complete(): boolean {
    return this.#sets !== null;
  }

  programs(form: ProgramForm): ProgramSet {
    if (this.#sets === null) throw new Error(`generation ${this.id} has no programs yet`);
    return this.#sets[form];
  }

  /** The programs as the guest fetches them at once (ability BLOB). */
  blob(form: ProgramForm): Uint8Array {
    let blob = this.#blobs.get(form);
    if (blob === undefined) {
      blob = buildBlob(this.programs(form), this.id);
      this.#blobs.set(form, blob);
    }
    return blob;
  }

  /** Prepares the queues for contexts of this generation. */
  configure({ rx, tx }: QueuePair): void {
    rx.configure(this.format, this.rxBufs);
    tx.configure(this.format, this.txBufs);
  }
}
