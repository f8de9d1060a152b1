/**
 * Saves and restores a queue between two turns of the loop: its registered rings with their
 * positions, and its counters. What is in the rings is in guest memory.
 *
 * Left out, because the next turns find it again: back-off, a starved or blocked
 * direction. The kick setting is written anew when a ring is attached.
 */
import { CONTEXT_PAGE, MAX_CONTEXT_SIZE, validQueueBufs } from "../abi/index.ts";
import type { HostRing, RingFormat } from "../devices/format.ts";
import { type CountersRecord, prepareCounters, saveCounters } from "../memory/counters.ts";
import type { GuestMemory, RunPlace } from "../memory/index.ts";
import { RecordError, RecordReader, readRecord } from "../memory/record.ts";
import { type AbsentContext, type ContextRecord, mapRecord } from "./contexts.ts";
import type { Queue } from "./queue.ts";
import { RegisteredRing } from "./registered-ring.ts";

export interface QueueRecord {
  readonly version: 1;
  readonly enabled: boolean;
  readonly current: RingRecord | null;
  readonly retiring: RingRecord | null;
  readonly counters: CountersRecord;
  /** While the queue's set is being replaced, for after a crash. */
  readonly next?: RingRecord;
}

export interface RingRecord {
  /** Name of the ring format. */
  readonly format: string;
  readonly bufs: number;
  readonly context: ContextRecord;
  /** File ranges of a context that the guest's memory map lacks; otherwise null. */
  readonly absent: readonly RunRecord[] | null;
  /** Ring position; null: resume from what the guest left in the context. */
  readonly position: number | null;
  readonly broken: boolean;
  /** True: the process that served it crashed; `position` is null. */
  readonly interrupted?: boolean;
  /** It was negotiated with these; missing: with the NIC's. */
  readonly features?: number;
  /** Of a retiring ring: nothing is left in it. */
  readonly drained?: boolean;
}

interface RunRecord {
  /** `MemoryFile.id` */
  readonly file: string;
  readonly offset: number;
  readonly length: number;
}

const LAST_ADDRESS = 2 ** 53 - 1;
const MAX_PAGES = MAX_CONTEXT_SIZE / CONTEXT_PAGE;

/**
 * @param crash the record is for after a crash: then positions are found in the guest's memory
 * @param replaces the guest has agreed to the next set
 */
export function saveQueue(queue: Queue, crash = false, replaces = false): QueueRecord {
  const { enabled, current, retiring, next, counters } = queue;
  return {
    version: 1,
    enabled,
    current: current === null ? null : saveRing(current, crash),
    retiring: retiring === null ? null : saveRing(retiring, crash),
    counters: saveCounters(counters),
    ...(replaces && next !== null ? { next: saveRing(next, crash) } : {}),
  };
}

function saveRing(entry: RegisteredRing<HostRing>, crash: boolean): RingRecord {
  const { format, bufs, context, ring } = entry;
  const { kind, address, pages, size } = context.record;
  const runs = ({ file, offset, length }: RunPlace) => ({ file: file.id, offset, length });
  return {
    format: format.name,
    bufs,
    context: { kind, address, pages: [...pages], size },
    absent: entry.absent ? context.runs.map(runs) : null,
    position: crash ? null : ring === null ? entry.position : ring.save(),
    broken: entry.broken,
    ...(crash ? { interrupted: true } : {}),
    ...(crash && entry.features !== null ? { features: entry.features } : {}),
    ...(crash && entry.drained ? { drained: true } : {}),
  };
}

export interface QueueSurroundings {
  /** Guest memory; null if no machine is attached: then no ring can be restored. */
  readonly memory: GuestMemory | null;
  /** Ring formats that this process can serve. */
  readonly formats: readonly RingFormat[];
}

export interface PreparedQueue {
  readonly enabled: boolean;
  readonly registered: boolean;
  /** Restores the queue, and does not fail. `Queue.attach` serves its rings. */
  commit(): void;
  /** Unmaps the contexts instead. */
  cancel(): void;
}

/**
 * Checks a record and maps its contexts, for a queue that has none.
 * @throws RecordError; then nothing is mapped
 */
export function prepareQueue(
  name: string,
  value: unknown,
  queue: Queue,
  surroundings: QueueSurroundings,
): PreparedQueue {
  if (queue.current !== null || queue.retiring !== null) throw new Error(`${name} is in use`);
  const { enabled, rings, counters } = readRecord(name, value, 1, (record) => ({
    enabled: record.flag("enabled"),
    rings: [
      ...[readRing(record, "current"), readRing(record, "retiring")],
      record.has("next") ? readRing(record, "next") : null,
    ],
    counters: prepareCounters(`${name}.counters`, record.inner("counters"), queue.counters),
  }));
  if (rings[1] !== null && !enabled) {
    throw new RecordError(`${name}.retiring: a queue that is disabled has no retiring ring`);
  }
  const made: RegisteredRing<HostRing>[] = [];
  const cancel = (): void => {
    for (const ring of made) ring.release();
  };
  const make = (which: string, record: RingRecord | null): RegisteredRing<HostRing> | null => {
    if (record === null) return null;
    const ring = makeRing(`${name}.${which}`, record, surroundings);
    made.push(ring);
    return ring;
  };
  try {
    const current = make("current", rings[0]);
    const retiring = make("retiring", rings[1]);
    const next = make("next", rings[2]);
    const commit = (): void => {
      counters();
      queue.adopt(enabled, current, retiring, next);
    };
    return { enabled, registered: current !== null, commit, cancel };
  } catch (error) {
    cancel();
    throw error;
  }
}

function readRing(queue: RecordReader, name: string): RingRecord | null {
  const value = queue.inner(name);
  if (value === null) return null;
  const record = new RecordReader(`${queue.path}.${name}`, value);
  const ring = {
    format: record.text("format", 256),
    bufs: record.whole("bufs", 1, 2 ** 31),
    context: readContext(record),
    absent:
      record.inner("absent") === null
        ? null
        : record.list("absent", MAX_PAGES + 1, (run) => ({
            file: run.text("file", 64),
            offset: run.whole("offset", 0, LAST_ADDRESS),
            length: run.whole("length", 1, MAX_CONTEXT_SIZE),
          })),
    position: record.inner("position") === null ? null : record.whole("position", 0, 2 ** 32 - 1),
    broken: record.flag("broken"),
    interrupted: record.has("interrupted") && record.flag("interrupted"),
    ...(record.has("features") ? { features: record.whole("features", 0, 2 ** 32 - 1) } : {}),
    drained: record.has("drained") && record.flag("drained"),
  };
  if (!validQueueBufs(ring.bufs)) record.refuse("bufs", "use a power of two from 16 to 8192");
  record.end();
  return ring;
}

function readContext(ring: RecordReader): ContextRecord {
  const record = new RecordReader(`${ring.path}.context`, ring.inner("context"));
  const context = {
    kind: record.one("kind", ["contiguous", "pages"]),
    address: record.whole("address", 0, LAST_ADDRESS),
    pages: record.wholes("pages", MAX_PAGES, 0, LAST_ADDRESS),
    size: record.whole("size", 1, MAX_CONTEXT_SIZE),
  };
  const pages = context.kind === "pages" ? Math.ceil(context.size / CONTEXT_PAGE) : 0;
  if (context.pages.length !== pages) record.refuse("pages", `use ${pages}`);
  record.end();
  return context;
}

function makeRing(
  path: string,
  record: RingRecord,
  { memory, formats }: QueueSurroundings,
): RegisteredRing<HostRing> {
  const refuse = (field: string, why: string): never => {
    throw new RecordError(`${path}.${field}: ${why}`);
  };
  const { bufs, context, absent } = record;
  const names = formats.map(({ name }) => name).join(", ");
  const format =
    formats.find(({ name }) => name === record.format) ??
    refuse("format", `"${record.format}" is not served here: use ${names}`);
  const problem = format.sizeProblem(bufs);
  if (problem !== null) refuse("bufs", problem);
  const size = format.contextSize(bufs);
  if (context.size !== size) refuse("context.size", `${context.size}: ${format.name} has ${size}`);
  const mapped = absent === null ? map(path, context, memory) : placeOf(context, absent);
  const ring = new RegisteredRing<HostRing>(mapped, format, bufs);
  ring.position = record.position;
  ring.stopped = record.broken;
  ring.interrupted = record.interrupted === true;
  ring.features = record.features ?? null;
  ring.drained = record.drained === true;
  return ring;
}

function map(path: string, context: ContextRecord, memory: GuestMemory | null) {
  if (memory === null) throw new RecordError(`${path}.context: no machine is attached`);
  const mapped = mapRecord(context, memory);
  if (typeof mapped !== "string") return mapped;
  const where = `0x${context.address.toString(16)}`;
  throw new RecordError(`${path}.context: the context at ${where} ${mapped}`);
}

function placeOf(record: ContextRecord, runs: readonly RunRecord[]): AbsentContext {
  const placed = runs.map(({ file, offset, length }) => ({ file: { id: file }, offset, length }));
  return { record, words: null, runs: placed };
}
