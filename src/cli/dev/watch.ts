/**
 * Tells when one of some files was saved, in whatever way: written in place, or renamed over. The
 * folders are watched, because a watch on a file ends with the file; and the files are looked at
 * from time to time, for file systems that tell nothing.
 */
import { type FSWatcher, statSync, watch } from "node:fs";
import { basename, dirname } from "node:path";

/** Editors save in several steps. */
const SETTLED_MS = 20;
const LOOK_MS = 1000;

export class FileWatch {
  readonly #changed: () => void;
  readonly #folders = new Map<string, FSWatcher>();
  #files: ReadonlySet<string> = new Set();
  #seen = "";
  #timer: NodeJS.Timeout | undefined;
  readonly #look = setInterval(() => this.#compare(), LOOK_MS);

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  follow(files: ReadonlySet<string>): void {
    this.#files = files;
    for (const folder of new Set([...files].map((file) => dirname(file)))) this.#watch(folder);
    this.#seen = this.#stamp();
  }

  close(): void {
    clearInterval(this.#look);
    clearTimeout(this.#timer);
    for (const watcher of this.#folders.values()) watcher.close();
    this.#folders.clear();
  }

  #watch(folder: string): void {
    if (this.#folders.has(folder)) return;
    try {
      const watcher = watch(folder, (_event, name) => {
        const isOurs = [...this.#files].some((file) => basename(file) === name);
        if (name === null || isOurs) this.#soon();
      });
      const forget = () => {
        watcher.close();
        this.#folders.delete(folder);
      };
      watcher.on("error", forget);
      this.#folders.set(folder, watcher);
    } catch {
      // It is not there: looked at until it is.
    }
  }

  #compare(): void {
    for (const file of this.#files) this.#watch(dirname(file));
    if (this.#stamp() !== this.#seen) this.#soon();
  }

  #stamp(): string {
    const times = [...this.#files].map((file) => {
      const stats = statSync(file, { throwIfNoEntry: false });
      return stats === undefined ? "-" : `${stats.mtimeMs} ${stats.size} ${stats.ino}`;
    });
    return times.join("\n");
  }

  #soon(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#seen = this.#stamp();
      this.#changed();
    }, SETTLED_MS);
  }
}
