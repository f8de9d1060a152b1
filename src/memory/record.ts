/**
 * State records: plain data that JSON can hold, with a version. A record may come from a file, so
 * it is hostile input: `RecordReader` checks each field, copies it, and refuses what it does not
 * know. An owner of state reads its whole record before it changes anything.
 */
import { closePeer } from "../os/peer-close.ts";

/** A refused record: the message names the field, its value, and what it must be. */
export class RecordError extends Error {
  readonly code = "RECORD";
  constructor(message: string) {
    super(message);
    this.name = "RecordError";
  }
}

const SHOWN = 40;

/** Reads the fields of one object of a record, each at most once. */
export class RecordReader {
  readonly path: string;
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #known = new Set<string>();

  /** @throws RecordError if `value` is not an object */
  constructor(path: string, value: unknown) {
    this.path = path;
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new RecordError(`${path} = ${shown(value)}: use an object`);
    }
    this.#fields = value as Record<string, unknown>;
  }

  #take(name: string): unknown {
    this.#known.add(name);
    return Object.hasOwn(this.#fields, name) ? this.#fields[name] : undefined;
  }

  /** Refuses a field. @throws RecordError always */
  refuse(name: string, must: string): never {
    throw new RecordError(`${this.path}.${name} = ${shown(this.#take(name))}: ${must}`);
  }

  has(name: string): boolean {
    return this.#take(name) !== undefined;
  }

  /** A whole number from `least` to `most`. */
  whole(name: string, least: number, most: number): number {
    const value = this.#take(name);
    if (isWhole(value, least, most)) return value;
    return this.refuse(name, `use a whole number from ${least} to ${most}`);
  }

  flag(name: string): boolean {
    const value = this.#take(name);
    return typeof value === "boolean" ? value : this.refuse(name, "use true or false");
  }

  /** A text of at most `longest` UTF-16 code units. */
  text(name: string, longest: number): string {
    const value = this.#take(name);
    if (typeof value === "string" && value.length <= longest) return value;
    return this.refuse(name, `use a text of at most ${longest} characters`);
  }

  one<T extends string>(name: string, values: readonly T[]): T {
    const value = this.#take(name);
    const found = values.find((each) => each === value);
    return found ?? this.refuse(name, `use one of ${values.join(", ")}`);
  }

  /** Bytes as hexadecimal digits; at most `longest` bytes. */
  bytes(name: string, longest: number): Uint8Array {
    const value = this.#take(name);
    const fits = typeof value === "string" && value.length <= 2 * longest;
    if (fits && /^([0-9a-f]{2})*$/.test(value)) return Uint8Array.from(Buffer.from(value, "hex"));
    return this.refuse(name, `use at most ${longest} bytes as hexadecimal digits`);
  }

  /** A whole number that has no other bits than those of `allowed`. */
  bits(name: string, allowed: number): number {
    const value = this.whole(name, 0, 2 ** 32 - 1);
    if ((value & ~allowed) >>> 0 === 0) return value;
    return this.refuse(name, `use bits of 0x${allowed.toString(16)}`);
  }

  /** A list of texts. */
  texts(name: string, longest: number, longestText: number): string[] {
    const list = this.#list(name, longest);
    const fits = (value: unknown) => typeof value === "string" && value.length <= longestText;
    if (list.every(fits)) return list.map(String);
    return this.refuse(name, `use texts of at most ${longestText} characters`);
  }

  wholes(name: string, longest: number, least: number, most: number): number[] {
    const list = this.#list(name, longest);
    if (list.every((value) => isWhole(value, least, most))) return list.slice();
    return this.refuse(name, `use whole numbers from ${least} to ${most}`);
  }

  /** A list of objects, each read by `read`. */
  list<T>(name: string, longest: number, read: (item: RecordReader) => T): T[] {
    return this.#list(name, longest).map((value, i) => {
      const item = new RecordReader(`${this.path}.${name}[${i}]`, value);
      const result = read(item);
      item.end();
      return result;
    });
  }

  #list(name: string, longest: number): unknown[] {
    const value = this.#take(name);
    if (Array.isArray(value) && value.length <= longest) return value;
    return this.refuse(name, `use a list of at most ${longest}`);
  }

  /** A list of records, for their owners to read. */
  values(name: string, longest: number): readonly unknown[] {
    return this.#list(name, longest);
  }

  /** An object of counters, in the order of `names`; those that it lacks are 0. */
  counts(name: string, names: readonly string[]): number[] {
    const record = new RecordReader(`${this.path}.${name}`, this.#take(name));
    const most = Number.MAX_SAFE_INTEGER;
    const counts = names.map((each) => (record.has(each) ? record.whole(each, 0, most) : 0));
    record.end();
    return counts;
  }

  /** A record inside of this one, for its owner to read. */
  inner(name: string): unknown {
    const value = this.#take(name);
    return value === undefined ? this.refuse(name, "it is missing") : value;
  }

  /** @throws RecordError if there are fields that were not read */
  end(): void {
    const unknown = Object.keys(this.#fields).find((name) => !this.#known.has(name));
    if (unknown !== undefined) this.refuse(unknown, "this release does not know the field");
  }
}

/**
 * Reads the record of one owner.
 * @param name of the owner, for messages
 * @param version the only one so far; a later release reads each version that was ever released
 * @throws RecordError, also if `read` leaves fields unread
 */
export function readRecord<T>(
  name: string,
  value: unknown,
  version: number,
  read: (record: RecordReader) => T,
): T {
  const record = new RecordReader(name, value);
  if (record.whole("version", 0, Number.MAX_SAFE_INTEGER) !== version) {
    record.refuse("version", `this release reads version ${version}`);
  }
  const result = read(record);
  record.end();
  return result;
}

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}

/** Descriptors that go along with a record, which names them by their place in this list. */
export class SavedFds {
  readonly fds: number[] = [];

  /** @returns the place of the descriptor; -1 if there is none */
  add(fd: number): number {
    return fd < 0 ? -1 : this.fds.push(fd) - 1;
  }
}

/**
 * The descriptors that came with a record. They stay the caller's until everything is restored;
 * then they belong to who claimed them.
 */
export class ClaimedFds {
  readonly #fds: readonly number[];
  readonly #claimed: boolean[];

  constructor(fds: readonly number[]) {
    this.#fds = fds;
    this.#claimed = fds.map(() => false);
  }

  /** @returns the descriptor whose place a field gives; -1 for -1. @throws RecordError */
  claim(record: RecordReader, name: string): number {
    const place = record.whole(name, -1, this.#fds.length - 1);
    if (place < 0) return -1;
    if (this.#claimed[place]) record.refuse(name, "another field has this descriptor");
    this.#claimed[place] = true;
    return this.#fds[place];
  }

  /** After everything is restored: closes the descriptors that no field has. */
  closeRest(): void {
    for (const [place, fd] of this.#fds.entries()) if (!this.#claimed[place]) closePeer(fd);
  }
}

function isWhole(value: unknown, least: number, most: number): value is number {
  // JSON has a negative zero, which is equal to 0 and not the same.
  if (!Number.isSafeInteger(value) || Object.is(value, -0)) return false;
  return (value as number) >= least && (value as number) <= most;
}

function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  const text = JSON.stringify(value) ?? typeof value;
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN)}…`;
}
