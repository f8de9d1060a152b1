/**
 * The register file as a table: one row for each register, or for the two words of a 64-bit one.
 * The table in docs/abi-extension.md and the check of the kernel module's header are made from it.
 */
import { ABI_VERSION, ABILITY, EXT_ID_VALUE, REG, type RegisterName } from "../abi/index.ts";
import { mapContiguous, mapPageList } from "../engine/contexts.ts";
import { setCoalescing } from "./coalescing.ts";
import { setContext } from "./context.ts";
import { control } from "./ctrl.ts";
import { dumpLength, dumpWord, selectDumpOffset } from "./dump.ts";
import { filterState, setFilter } from "./filter.ts";
import type { Generation } from "./generation.ts";
import {
  acknowledge,
  commandQueue,
  has,
  OFFERED_ABILITIES,
  selectFeatures,
  selectView,
  shownSet,
  takeVerdict,
} from "./negotiation.ts";
import type { Nic } from "./nic.ts";
import { blobLength, deliverBlob, programSize, selectProgram } from "./programs.ts";
import { rssState, setRss } from "./rss.ts";
import type { LatchName } from "./state.ts";

/** Read-only, read and write, write-only, write 1 to clear. */
export type Access = "RO" | "RW" | "WO" | "W1C";
type Read = (nic: Nic) => number;
type Write = (nic: Nic, value: number) => void;

export interface Register {
  readonly name: RegisterName;
  /** Reads as 0 if null. */
  readonly read: Read | null;
  /** Writes are refused if null. */
  readonly write: Write | null;
}

/** A row of the documentation. */
export interface Row {
  readonly registers: readonly Register[];
  readonly access: Access;
  readonly meaning: string;
}

function readOnly(name: RegisterName, meaning: string, read: Read): Row {
  return { registers: [{ name, read, write: null }], access: "RO", meaning };
}

function writeOnly(name: RegisterName, meaning: string, write: Write): Row {
  return { registers: [{ name, read: null, write }], access: "WO", meaning };
}

function writable(name: RegisterName, meaning: string, read: Read, write: Write): Row {
  return { registers: [{ name, read, write }], access: "RW", meaning };
}

/** Of the set that SET_VIEW shows; 0 if that is staged no more. */
function ofSet(read: (set: Generation) => number): Read {
  return (nic) => {
    const set = shownSet(nic);
    return set === null ? 0 : read(set);
  };
}

/** A 64-bit register. Writing the high word acts on the whole value. */
function latch(
  name: LatchName,
  meaning: string,
  act: (nic: Nic, value: number) => void = () => {},
): Row {
  const low: Register = {
    name: `${name}_LO`,
    read: ({ state }) => state.latches[name].low,
    write: ({ state }, value) => {
      state.latches[name].low = value;
    },
  };
  const high: Register = {
    name: `${name}_HI`,
    read: ({ state }) => state.latches[name].high,
    write: (nic, value) => {
      const words = nic.state.latches[name];
      words.high = value;
      act(nic, value * 2 ** 32 + words.low);
    },
  };
  return { registers: [low, high], access: "RW", meaning };
}

/** An action of a latch that the driver must have acknowledged an ability for. */
function needs(ability: keyof typeof ABILITY, act: Write): Write {
  return (nic, value) => {
    if (has(nic, ABILITY[ability])) act(nic, value);
    else nic.refusals.add("register", `request without the ability ${ability}`);
  };
}

const macWord = ({ config }: Nic, from: number, to: number): number =>
  config.mac.subarray(from, to).reduce((word, byte) => word * 256 + byte, 0);

/** Headroom 256, page alignment, 1536 bytes preferred (in units of 64). */
const RX_GEOMETRY = 256 | (12 << 12) | (24 << 16);

const VERSION_1: readonly Row[] = [
  readOnly("STATUS", "1 link up, 2 upgrade pending, 4 RX and 8 TX enabled", (nic) => nic.status),
  writeOnly(
    "CTRL",
    "1 RX enable, 2 TX enable, 4 RX disable, 8 TX disable, 16 upgrade ready, 32 take a queue dump",
    control,
  ),
  readOnly("MAC_LO", "last four bytes of the MAC address", (nic) => macWord(nic, 2, 6)),
  readOnly("MAC_HI", "first two bytes", (nic) => macWord(nic, 0, 2)),
  readOnly("NUM_RX_QUEUES", "receive queues", ({ pairs }) => pairs.length),
  readOnly("NUM_TX_QUEUES", "transmit queues", ({ pairs }) => pairs.length),
  readOnly(
    "NUM_RX_BUFS",
    "descriptors of a receive queue",
    ofSet(({ rxBufs }) => rxBufs),
  ),
  readOnly(
    "NUM_TX_BUFS",
    "descriptors of a transmit queue",
    ofSet(({ txBufs }) => txBufs),
  ),
  readOnly(
    "RX_CTX_SIZE",
    "bytes of a receive context",
    ofSet(({ format, rxBufs }) => format.contextSize(rxBufs)),
  ),
  readOnly(
    "TX_CTX_SIZE",
    "bytes of a transmit context",
    ofSet(({ format, txBufs }) => format.contextSize(txBufs)),
  ),
  readOnly("DOORBELL_SIZE", "bytes between doorbells", ({ config }) => config.doorbellSize),
  writable(
    "QUEUE_SELECT",
    "the queue that CTX_PADDR and PAGES register a context for",
    ({ state }) => state.queueSelect,
    selectQueue,
  ),
  latch(
    "CTX_PADDR",
    "guest address of a context; writing HI registers it for the selected queue, 0 unregisters",
    (nic, address) => setContext(nic, address, mapContiguous),
  ),
  writable(
    "PROG_SELECT",
    "the program that PROG_SIZE and the program window show",
    ({ state }) => state.programSelect,
    selectProgram,
  ),
  readOnly("PROG_SIZE", "its instructions", programSize),
  latch("DOORBELL_GVA", "the guest's address of the doorbells, for its programs"),
  readOnly("VERSION", "1", () => ABI_VERSION),
  writable(
    "FEATURES",
    "the features offered; once written, the selected ones",
    shownFeatures,
    selectFeatures,
  ),
  readOnly("DUMP_LEN", "bytes of the queue dump, with a terminating zero", dumpLength),
  readOnly("DUMP_INPUT", "four bytes of it", dumpWord),
  writable("DUMP_OFS", "their offset", ({ state }) => state.dumpOffset, selectDumpOffset),
];

const EXTENSION: readonly Row[] = [
  readOnly("EXT_ID", '0x31585642 ("BVX1")', () => EXT_ID_VALUE),
  readOnly("EXT_OFFER", "abilities offered", () => OFFERED_ABILITIES),
  writable(
    "EXT_ACK",
    "abilities acknowledged; refused while a direction is enabled, or if a bit was not offered",
    ({ state }) => state.abilities,
    acknowledge,
  ),
  {
    registers: [
      {
        name: "EVENT",
        read: ({ state }) => state.events,
        write: ({ state }, bits) => {
          state.events &= ~bits;
        },
      },
    ],
    access: "W1C",
    meaning:
      "1 link or MTU changed, 2 set staged, 4 set withdrawn, 8 reset requested; " +
      "raises the last vector",
  },
  readOnly("SET_CUR", "generation of the current set, never 0", ({ running }) => running.id),
  readOnly("SET_NEXT", "generation of the staged set, 0: none", ({ wanted, upgrade }) =>
    wanted === null || upgrade.phase === "asked" ? 0 : wanted.id,
  ),
  writable(
    "SET_VIEW",
    "1: registers 24 to 36, 44 to 60, 76 and 136 to 164 are those of the staged set",
    ({ upgrade }) => (upgrade.view === 0 ? 0 : 1),
    needs("OVERLAP", selectView),
  ),
  writable(
    "SET_VERDICT",
    "verdict on a set, generation << 8 + code: 0 ready, 1 program refused, 2 memory, 3 feature, " +
      "4 given up; reads the host's answer: 0 pending, 1 go, 2 withdrawn",
    ({ upgrade }) => upgrade.answer,
    takeVerdict,
  ),
  writeOnly(
    "VERDICT_INFO",
    "details, written before it: program << 24 + instruction; 0xffffff: the driver does not know " +
      "which",
    ({ state }, info) => {
      state.verdictInfo = info;
    },
  ),
  writeOnly(
    "Q_CMD",
    "command << 16 + queue: 1 TX_CUT, 2 RX_CUT, 4 RETIRE",
    needs("OVERLAP", commandQueue),
  ),
  readOnly(
    "Q_DRAINED",
    "bit q: the host touches the retiring ring of queue q no more",
    ({ upgrade }) => upgrade.drained,
  ),
  latch(
    "BLOB",
    "writing HI makes the host write the program blob to that guest address",
    needs("BLOB", deliverBlob),
  ),
  readOnly("BLOB_LEN", "its length", (nic) => (has(nic, ABILITY.BLOB) ? blobLength(nic) : 0)),
  readOnly(
    "OFFERED",
    "features offered (FEATURES shows the selected ones after negotiation)",
    ofSet(({ features }) => features),
  ),
  readOnly("MTU", "largest MTU", ({ link }) => link.mtu),
  readOnly(
    "RX_GEOM",
    "preferred receive buffers: bits 0–11 headroom, 12–15 log2 of alignment, 16–27 length / 64",
    (nic) => (has(nic, ABILITY.GEOMETRY) ? RX_GEOMETRY : 0),
  ),
  latch(
    "PAGES",
    "guest address of a list of pages; writing HI registers the selected queue's context",
    needs("CTX_PAGES", (nic, list) => setContext(nic, list, mapPageList)),
  ),
  readOnly("LINK_SPEED", "Mb/s, 0 = unknown", ({ config }) => config.linkSpeed),
  latch(
    "FILTER",
    "guest address of a receive filter; writing HI makes the host read and use it, 0: none",
    needs("FILTER", setFilter),
  ),
  readOnly(
    "FILTER_STATE",
    "bits 0–7 mode in use, 8–15 result of the last request, 16–31 addresses in use",
    filterState,
  ),
  writable(
    "COALESCE",
    "interrupts are held for so many microseconds: bits 0–14 receive, 16–30 transmit; " +
      "15 and 31 adaptive, up to that",
    ({ state }) => state.coalesce,
    setCoalescing,
  ),
  latch(
    "RSS",
    "guest address of flow hash settings; writing HI makes the host read and use them, 0: none",
    needs("RSS", setRss),
  ),
  readOnly(
    "RSS_STATE",
    "bits 0–7 flags in use, 8–15 result of the last request, 16–31 entries of the table",
    rssState,
  ),
];

/** By ascending offset. */
export const REGISTER_ROWS: readonly Row[] = [...VERSION_1, ...EXTENSION];

/** By word of the BAR. */
const REGISTERS: Register[] = [];
for (const register of REGISTER_ROWS.flatMap((row) => row.registers)) {
  REGISTERS[REG[register.name] / 4] = register;
}

/** @param offset a multiple of 4 */
export function readRegister(nic: Nic, offset: number): number {
  const read = REGISTERS[offset / 4]?.read;
  return read === undefined || read === null ? 0 : read(nic);
}

/** @param offset a multiple of 4 */
export function writeRegister(nic: Nic, offset: number, value: number): void {
  const write = REGISTERS[offset / 4]?.write;
  if (write !== undefined && write !== null) return write(nic, value);
  const name = REGISTERS[offset / 4]?.name ?? "unassigned";
  nic.refusals.add("register", `write to register 0x${offset.toString(16)} (${name}): read only`);
}

function shownFeatures(nic: Nic): number {
  const { state, upgrade } = nic;
  const [negotiated, selected] =
    upgrade.view === 0
      ? [state.featuresNegotiated, state.selectedFeatures]
      : [upgrade.negotiated, upgrade.selectedFeatures];
  const set = shownSet(nic);
  if (set === null) return 0;
  return negotiated ? selected : set.features;
}

function selectQueue(nic: Nic, index: number): void {
  const { length } = nic.queues;
  if (index < length) nic.state.queueSelect = index;
  else nic.refusals.add("register", `queue ${index} selected of ${length}`);
}
