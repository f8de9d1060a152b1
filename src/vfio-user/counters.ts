/**
 * Counters of a server. Declared once: documentation, status and the object come from this list.
 */
export const COUNTERS = {
  messages: "messages taken from the client",
  regionReads: "accesses that read",
  regionWrites: "accesses that write, posted ones included",
  postedWrites: "writes that asked for no answer",
  interrupts: "vectors fired",
  interruptsDropped: "vectors fired without eventfd, or with bus mastering off",
  connections: "clients accepted",
  acceptFailures: "times a client could not be accepted, and was left waiting for half a second",
  resets: "resets: by message, by function level reset, by loss of the client",
  refusedMalformed: "messages refused: invalid sizes or flags",
  refusedUnknown: "messages refused: a command that this server does not know",
  refusedState: "messages refused: before, or a second, VERSION",
  refusedRegion: "accesses refused: no such region, outside of it, or an odd size",
  refusedDma: "map and unmap requests refused",
  refusedIrq: "interrupt requests refused",
  refusedReply: "replies nobody asked for",
  strayDescriptors: "descriptors closed that no message should have carried",
  lateAnswers: "requests that waited so long that the answer has no data, only an error",
  disconnects: "connections ended by us: framing, descriptors, answers not read, nothing said",
  deviceErrors: "exceptions thrown by the device",
} as const;

export type CounterName = keyof typeof COUNTERS;
export type Counters = Record<CounterName, number>;

export function newCounters(): Counters {
  const names = Object.keys(COUNTERS) as CounterName[];
  return Object.fromEntries(names.map((name) => [name, 0])) as Counters;
}
