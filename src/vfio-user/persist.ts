/**
 * The state of a server and its client as one record, between two messages. Another server, of a
 * device that is described alike, continues from it; the client does not notice.
 *
 * Descriptors (the connection, memory files, eventfds) go beside the record, which names them by
 * their place. Times are left out: they begin anew.
 */
import { prepareRegions, type RegionsRecord, saveRegions } from "../memory/persist.ts";
import {
  type ClaimedFds,
  RecordError,
  type RecordReader,
  readRecord,
  type SavedFds,
} from "../memory/record.ts";
import type { RegionTable } from "../memory/regions.ts";
import { fdTarget } from "../os/fd.ts";
import type { ConfigRecord } from "./config-space.ts";
import { COUNTERS, type CounterName, type Counters } from "./counters.ts";
import type { MessageStream, StreamRecord } from "./framing.ts";
import type { VectorsRecord } from "./msix.ts";
import type { PciFunction } from "./pci.ts";
import type { RepliesRecord, ReplyWriter } from "./replies.ts";
import type { Session } from "./session.ts";

export interface ServerRecord {
  readonly version: 1;
  /** Place of the client's socket; -1: there is no client. */
  readonly connection: number;
  readonly session: SessionRecord;
  readonly stream: StreamRecord;
  readonly replies: RepliesRecord;
  readonly config: ConfigRecord;
  readonly vectors: VectorsRecord;
  readonly memory: RegionsRecord;
  readonly counters: Readonly<Record<string, number>>;
}

export interface SessionRecord {
  readonly version: 1;
  readonly negotiated: boolean;
  readonly lastRefusal: string;
}

/** What a server consists of. */
export interface ServerParts {
  readonly session: Session;
  readonly stream: MessageStream;
  readonly replies: ReplyWriter;
  readonly pci: PciFunction;
  readonly dma: RegionTable;
  readonly counters: Counters;
}

export interface PreparedServer {
  /** -1: there is no client. */
  readonly connection: number;
  /** Restores everything but the connection, and does not fail. */
  commit(): void;
}

const MAX_REFUSAL = 400;
const COUNTER_NAMES = Object.keys(COUNTERS) as CounterName[];

export function saveServer(parts: ServerParts, connection: number, fds: SavedFds): ServerRecord {
  const { session, stream, replies, pci, dma, counters } = parts;
  const { negotiated, lastRefusal } = session;
  return {
    version: 1,
    connection: fds.add(connection),
    session: { version: 1, negotiated, lastRefusal: lastRefusal.slice(0, MAX_REFUSAL) },
    stream: stream.save(fds),
    replies: replies.save(),
    config: pci.config.save(),
    vectors: pci.vectors.save(fds),
    memory: saveRegions(dma, fds),
    counters: { ...counters },
  };
}

/**
 * Checks a record, for a server without a client.
 * @throws RecordError; then nothing was changed, and the descriptors stay the caller's
 */
export function prepareServer(
  name: string,
  value: unknown,
  parts: ServerParts,
  fds: ClaimedFds,
): PreparedServer {
  return readRecord(name, value, 1, (record) => {
    const { stream, replies, pci, dma, counters } = parts;
    const connection = fds.claim(record, "connection");
    const session = prepareSession(`${name}.session`, record.inner("session"), parts.session);
    const counts = record.counts("counters", COUNTER_NAMES);
    const commits = [
      session.commit,
      stream.prepare(`${name}.stream`, record.inner("stream"), fds),
      replies.prepare(`${name}.replies`, record.inner("replies")),
      pci.config.prepare(`${name}.config`, record.inner("config")),
      pci.vectors.prepare(`${name}.vectors`, record.inner("vectors"), fds),
      () => {
        for (const [i, counter] of COUNTER_NAMES.entries()) counters[counter] = counts[i];
      },
    ];
    checkConnection(record, connection, session.negotiated);
    const memory = record.inner("memory");
    // Everything else is checked before files are mapped.
    record.end();
    commits.push(prepareRegions(`${name}.memory`, memory, dma, fds));
    return {
      connection,
      commit: () => {
        for (const commit of commits) commit();
      },
    };
  });
}

function prepareSession(name: string, value: unknown, session: Session) {
  const { negotiated, lastRefusal } = readRecord(name, value, 1, (record) => ({
    negotiated: record.flag("negotiated"),
    lastRefusal: record.text("lastRefusal", MAX_REFUSAL),
  }));
  const commit = (): void => {
    session.negotiated = negotiated;
    session.lastRefusal = lastRefusal;
  };
  return { negotiated, commit };
}

function checkConnection(record: RecordReader, connection: number, negotiated: boolean): void {
  if (connection < 0) {
    if (negotiated) record.refuse("connection", "a session that was negotiated has a client");
    return;
  }
  if (fdTarget(connection).startsWith("socket:")) return;
  throw new RecordError(`${record.path}.connection: the descriptor is not a socket`);
}
