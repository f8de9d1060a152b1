/**
 * Saves and restores a NIC between two turns of the loop. The guest's driver does not notice that
 * another NIC, of the same configuration and over the same guest memory, continues. Programs are
 * not in the record: the other NIC ships those of its generation.
 */
import { ABILITY, ANSWER, EVENT, MAX_PROGRAM_ID } from "../abi/index.ts";
import {
  type PreparedQueue,
  prepareQueue,
  type QueueRecord,
  saveQueue,
} from "../engine/persist.ts";
import { RecordError, RecordReader, readRecord } from "../memory/record.ts";
import { coalescingProblem } from "./coalescing.ts";
import { MIN_MTU } from "./config.ts";
import { readFilter } from "./filter.ts";
import type { Generation } from "./generation.ts";
import { OFFERED_ABILITIES } from "./negotiation.ts";
import type { Nic } from "./nic.ts";
import { REFUSAL_REASONS, type Refusals } from "./refusals.ts";
import { readRss } from "./rss.ts";
import { HANDSHAKE_STEPS, type HandshakeStep, LATCHES, type NicState } from "./state.ts";

export interface NicRecord {
  readonly version: 1;
  readonly generation: GenerationRecord;
  readonly state: NicState;
  readonly step: HandshakeStep;
  readonly resets: number;
  readonly link: { readonly mtu: number; readonly wasUp: boolean };
  readonly refusals: {
    readonly counters: Readonly<Record<string, number>>;
    readonly first: string;
    readonly last: string;
    readonly latest: Readonly<Record<string, string>>;
  };
  /** Receive queues, then transmit queues. */
  readonly queues: readonly QueueRecord[];
  /** SET_VIEW: a set that is staged no more. Missing: the current one. */
  readonly view?: number;
  /** SET_VERDICT. Missing: pending. */
  readonly answer?: number;
  /** The highest number of a set so far. Missing: that of the current one. */
  readonly lastId?: number;
  /** A replacement that the guest has agreed to, for after a crash. */
  readonly upgrade?: UpgradeRecord;
}

interface UpgradeRecord {
  readonly phase: "go" | "cutting";
  readonly wanted: GenerationRecord;
  readonly selectedFeatures: number;
}

export interface GenerationRecord {
  readonly version: 1;
  readonly id: number;
  readonly format: string;
  readonly rxBufs: number;
  readonly txBufs: number;
  readonly features: number;
}

const MAX_MESSAGE = 1000;
const MAX_DUMP = 1 << 16;
const MAX_COUNT = Number.MAX_SAFE_INTEGER;
const U32 = 2 ** 32 - 1;
const EVENTS = Object.values(EVENT).reduce<number>((bits, bit) => bits | bit, 0);

/**
 * @param crash the record is for after a crash of this process: a set that the guest has not agreed
 * to is withdrawn then
 * @throws RecordError while a set is replaced: withdraw it, or wait until that is over
 */
export function saveNic(nic: Nic, crash = false): NicRecord {
  const { link, refusals, upgrade } = nic;
  const withdraws = crash && (upgrade.phase === "staged" || upgrade.phase === "asked");
  if (upgrade.phase !== "idle" && !crash) {
    throw new RecordError(`nic: set ${nic.wanted?.id} is being taken: withdraw it, or wait`);
  }
  const cut = (text: string): string => text.slice(0, MAX_MESSAGE);
  const latest = Object.entries(refusals.latest).map(([reason, text]) => [reason, cut(text)]);
  return {
    version: 1,
    generation: saveGeneration(nic.running),
    state: withdraws ? withdrawn(nic.state) : structuredClone(nic.state),
    step: nic.step,
    resets: nic.resets,
    link: { mtu: link.mtu, wasUp: link.wasUp },
    refusals: {
      counters: { ...refusals.counts },
      first: cut(refusals.first),
      last: cut(refusals.last),
      latest: Object.fromEntries(latest),
    },
    queues: nic.queues.map((queue) => saveQueue(queue, crash, upgrade.agreed)),
    // Rare: the driver looks at a set that has been withdrawn.
    ...(upgrade.view === 0 ? {} : { view: upgrade.view }),
    ...(upgrade.lastId === 0 ? {} : { lastId: upgrade.lastId }),
    ...(withdraws ? { answer: ANSWER.WITHDRAWN } : answerOf(upgrade.answer)),
    ...saveUpgrade(nic),
  };
}

function saveUpgrade({ upgrade, wanted }: Nic): { upgrade?: UpgradeRecord } {
  const { phase, selectedFeatures } = upgrade;
  if (wanted === null || (phase !== "go" && phase !== "cutting")) return {};
  return { upgrade: { phase, wanted: saveGeneration(wanted), selectedFeatures } };
}

const answerOf = (answer: number) => (answer === ANSWER.PENDING ? {} : { answer });

/** As `Upgrade.withdraw` leaves it. */
function withdrawn(state: NicState): NicState {
  const events = state.abilities & ABILITY.EVENT ? state.events | EVENT.WITHDRAWN : state.events;
  return { ...structuredClone(state), upgradePending: false, events };
}

export function saveGeneration(generation: Generation): GenerationRecord {
  const { id, format, rxBufs, txBufs, features } = generation;
  return { version: 1, id, format: format.name, rxBufs, txBufs, features };
}

/**
 * Restores a NIC that a machine is attached to, and whose driver has done nothing yet.
 * @throws RecordError; then nothing was changed
 */
export function restoreNic(nic: Nic, value: unknown): void {
  const prepared: PreparedQueue[] = [];
  let commit: () => void;
  try {
    commit = prepareNic(nic, value, prepared);
  } catch (error) {
    for (const queue of prepared) queue.cancel();
    throw error;
  }
  commit();
}

/** Checks a record, and maps contexts: their queues are added to `prepared`. */
function prepareNic(nic: Nic, value: unknown, prepared: PreparedQueue[]): () => void {
  const { config, queues, running } = nic;
  return readRecord("nic", value, 1, (record) => {
    const generation = prepareGeneration("nic.generation", record.inner("generation"), running);
    const state = readState(record, nic);
    const step = record.one("step", HANDSHAKE_STEPS);
    const resets = record.whole("resets", 0, MAX_COUNT);
    const link = readPart(record, "link", (part) => ({
      mtu: part.whole("mtu", MIN_MTU, config.mtu),
      wasUp: part.flag("wasUp"),
    }));
    const refusals = prepareRefusals(record, nic.refusals);
    const records = record.values("queues", queues.length);
    if (records.length !== queues.length) record.refuse("queues", `use ${queues.length}`);
    const view = record.has("view") ? record.whole("view", 1, U32) : 0;
    const lastId = record.has("lastId") ? record.whole("lastId", 1, U32) : 0;
    const answers = Object.values(ANSWER);
    const answer = record.has("answer") ? record.whole("answer", 0, U32) : ANSWER.PENDING;
    if (!answers.some((each) => each === answer)) record.refuse("answer", "use one of the ABI");
    // Contexts stay registered while bus mastering is off: mapping does not access memory.
    const memory = nic.host?.memory ?? null;
    const upgrade = record.has("upgrade") ? prepareUpgrade(record, nic) : null;
    const { prepared: other } = nic;
    const formats = upgrade === null ? [running.format] : [running.format, other!.format];
    const surroundings = { memory, formats };
    for (const [i, queue] of queues.entries()) {
      prepared.push(prepareQueue(`nic.queues[${i}]`, records[i], queue, surroundings));
    }
    checkDirections(nic, prepared);
    return () => {
      generation();
      refusals();
      nic.state = state;
      nic.useSettings();
      nic.step = step;
      // A driver may have read what depends on the set before it said anything.
      nic.setRead = step !== "no guest";
      nic.upgrade.resume(view, answer, lastId);
      nic.resets = resets;
      nic.link.mtu = link.mtu;
      nic.link.wasUp = link.wasUp;
      for (const queue of prepared) queue.commit();
      nic.serve();
      upgrade?.();
    };
  });
}

/** What the running generation cannot have otherwise, as queues and programs were made for it. */
function prepareGeneration(name: string, value: unknown, running: Generation): () => void {
  return readRecord(name, value, 1, (record) => {
    const id = record.whole("id", 1, U32);
    record.one("format", [running.format.name]);
    for (const field of ["rxBufs", "txBufs", "features"] as const) {
      record.whole(field, running[field], running[field]);
    }
    return () => running.renumber(id);
  });
}

/** The set must be there, with its programs. */
function prepareUpgrade(record: RecordReader, nic: Nic): () => void {
  const { prepared } = nic;
  if (prepared === null) return record.refuse("upgrade", "the guest's next set is not known here");
  return readPart(record, "upgrade", (part) => {
    const phase = part.one("phase", ["go", "cutting"]);
    const generation = prepareGeneration("nic.upgrade.wanted", part.inner("wanted"), prepared);
    const features = part.bits("selectedFeatures", prepared.features);
    return () => {
      generation();
      nic.wanted = prepared;
      nic.prepared = null;
      nic.upgrade.resumeCut(phase, features);
    };
  });
}

function readPart<T>(record: RecordReader, name: string, read: (part: RecordReader) => T): T {
  const part = new RecordReader(`${record.path}.${name}`, record.inner(name));
  const result = read(part);
  part.end();
  return result;
}

function readState(record: RecordReader, nic: Nic): NicState {
  return readPart(record, "state", (part) => {
    const state = {
      busMaster: part.flag("busMaster"),
      upgradePending: part.flag("upgradePending"),
      queueSelect: part.whole("queueSelect", 0, nic.queues.length - 1),
      programSelect: part.whole("programSelect", 0, MAX_PROGRAM_ID),
      latches: readLatches(part),
      featuresNegotiated: part.flag("featuresNegotiated"),
      selectedFeatures: part.bits("selectedFeatures", nic.running.features),
      abilities: part.bits("abilities", OFFERED_ABILITIES),
      events: part.bits("events", EVENTS),
      verdictInfo: part.whole("verdictInfo", 0, U32),
      filter: readPart(part, "filter", readFilter),
      rss: readPart(part, "rss", (rss) => readRss(rss, nic.pairs.length)),
      coalesce: part.whole("coalesce", 0, U32),
      dump: part.text("dump", MAX_DUMP),
      dumpOffset: part.whole("dumpOffset", 0, MAX_DUMP),
    };
    const { dump, dumpOffset, busMaster, abilities, events } = state;
    if (dumpOffset % 4 !== 0 || dumpOffset > Buffer.byteLength(dump)) {
      part.refuse("dumpOffset", "use a multiple of 4 inside the dump");
    }
    if (coalescingProblem(state.coalesce) !== null)
      part.refuse("coalesce", "its times are too long");
    if (busMaster !== nic.state.busMaster) part.refuse("busMaster", "the machine has the opposite");
    if (events !== 0 && !(abilities & ABILITY.EVENT)) {
      part.refuse("events", "the driver did not acknowledge events");
    }
    return state;
  });
}

function readLatches(part: RecordReader): NicState["latches"] {
  return readPart(part, "latches", (latches) => {
    const words = LATCHES.map((name) => [
      name,
      readPart(latches, name, (latch) => ({
        low: latch.whole("low", 0, U32),
        high: latch.whole("high", 0, U32),
      })),
    ]);
    return Object.fromEntries(words) as NicState["latches"];
  });
}

function prepareRefusals(record: RecordReader, refusals: Refusals): () => void {
  return readPart(record, "refusals", (part) => {
    const counts = part.counts("counters", REFUSAL_REASONS);
    const first = part.text("first", MAX_MESSAGE);
    const last = part.text("last", MAX_MESSAGE);
    const latest = readPart(part, "latest", (texts) =>
      REFUSAL_REASONS.filter((reason) => texts.has(reason)).map(
        (reason) => [reason, texts.text(reason, MAX_MESSAGE)] as const,
      ),
    );
    return () => {
      for (const [i, reason] of REFUSAL_REASONS.entries()) refusals.counts[reason] = counts[i];
      refusals.first = first;
      refusals.last = last;
      for (const [reason, text] of latest) refusals.latest[reason] = text;
    };
  });
}

/** Queues of a direction are enabled together, and only with contexts. */
function checkDirections(nic: Nic, prepared: readonly PreparedQueue[]): void {
  for (const direction of ["rx", "tx"]) {
    const queues = prepared.filter((_, i) => nic.queues[i].direction === direction);
    const { enabled } = queues[0];
    if (queues.some((queue) => queue.enabled !== enabled)) {
      throw new RecordError(`nic.queues: ${direction} queues are enabled together`);
    }
    if (enabled && queues.some(({ registered }) => !registered)) {
      throw new RecordError(`nic.queues: ${direction} is enabled without all contexts`);
    }
  }
}
