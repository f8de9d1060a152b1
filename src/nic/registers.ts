/**
 * The register file: what each register reads as, and what a write to it does. Registers that are
 * not in a table read 0 and ignore writes.
 */
import {
  ABI_VERSION,
  ABILITY,
  EXT_ID_VALUE,
  MAX_PROGRAM_ID,
  PROGRAM_NAMES,
  type ProgramId,
  REG,
  VERDICT,
} from "../abi/index.ts";
import { offeredFeatures } from "./config.ts";
import { type Nic, OFFERED_ABILITIES } from "./nic.ts";

type Read = (nic: Nic) => number;
type Write = (nic: Nic, value: number) => void;

const macWord = (nic: Nic, from: number, to: number): number =>
  nic.config.mac.subarray(from, to).reduce((word, byte) => word * 256 + byte, 0);

/** Headroom 256, page alignment, 1536 bytes preferred (in units of 64). */
const RX_GEOMETRY = 256 | (12 << 12) | (24 << 16);

const READ = new Map<number, Read>([
  [REG.STATUS, (nic) => nic.status],
  [REG.MAC_LO, (nic) => macWord(nic, 2, 6)],
  [REG.MAC_HI, (nic) => macWord(nic, 0, 2)],
  [REG.NUM_RX_QUEUES, (nic) => nic.config.pairs],
  [REG.NUM_TX_QUEUES, (nic) => nic.config.pairs],
  [REG.NUM_RX_BUFS, (nic) => nic.config.rxBufs],
  [REG.NUM_TX_BUFS, (nic) => nic.config.txBufs],
  [REG.RX_CTX_SIZE, (nic) => nic.pairs[0].rx.contextSize],
  [REG.TX_CTX_SIZE, (nic) => nic.pairs[0].tx.contextSize],
  [REG.DOORBELL_SIZE, (nic) => nic.config.doorbellSize],
  [REG.QUEUE_SELECT, (nic) => nic.state.queueSelect],
  [REG.CTX_PADDR_LO, (nic) => nic.state.contextLow],
  [REG.CTX_PADDR_HI, (nic) => nic.state.contextHigh],
  [REG.PROG_SELECT, (nic) => nic.state.programSelect],
  [REG.PROG_SIZE, (nic) => programSize(nic)],
  [REG.DOORBELL_GVA_LO, (nic) => nic.state.doorbellGvaLow],
  [REG.DOORBELL_GVA_HI, (nic) => nic.state.doorbellGvaHigh],
  [REG.VERSION, () => ABI_VERSION],
  [
    REG.FEATURES,
    ({ state, config }) =>
      state.featuresNegotiated ? state.selectedFeatures : offeredFeatures(config),
  ],
  [REG.DUMP_LEN, ({ state }) => (state.dump === "" ? 0 : Buffer.byteLength(state.dump) + 1)],
  [REG.DUMP_INPUT, ({ state }) => dumpWord(state.dump, state.dumpOffset)],
  [REG.DUMP_OFS, (nic) => nic.state.dumpOffset],
  [REG.EXT_ID, () => EXT_ID_VALUE],
  [REG.EXT_OFFER, () => OFFERED_ABILITIES],
  [REG.EXT_ACK, (nic) => nic.state.abilities],
  [REG.EVENT, (nic) => nic.state.events],
  [REG.SET_CUR, (nic) => nic.state.generation],
  [REG.BLOB_LO, (nic) => nic.state.blobLow],
  [REG.BLOB_HI, (nic) => nic.state.blobHigh],
  [REG.BLOB_LEN, (nic) => (has(nic, ABILITY.BLOB) ? nic.blob.length : 0)],
  [REG.OFFERED, (nic) => offeredFeatures(nic.config)],
  [REG.MTU, (nic) => nic.mtu],
  [REG.RX_GEOM, (nic) => (has(nic, ABILITY.GEOMETRY) ? RX_GEOMETRY : 0)],
  [REG.PAGES_LO, (nic) => nic.state.pagesLow],
  [REG.PAGES_HI, (nic) => nic.state.pagesHigh],
  [REG.LINK_SPEED, (nic) => nic.config.linkSpeed],
]);

const WRITE = new Map<number, Write>([
  [REG.CTRL, (nic, value) => nic.control(value)],
  [REG.QUEUE_SELECT, selectQueue],
  [
    REG.CTX_PADDR_LO,
    (nic, value) => {
      nic.state.contextLow = value;
    },
  ],
  [
    REG.CTX_PADDR_HI,
    (nic, value) => {
      nic.state.contextHigh = value;
      nic.setContiguousContext(value * 2 ** 32 + nic.state.contextLow);
    },
  ],
  [REG.PROG_SELECT, selectProgram],
  [
    REG.DOORBELL_GVA_LO,
    (nic, value) => {
      nic.state.doorbellGvaLow = value;
    },
  ],
  [
    REG.DOORBELL_GVA_HI,
    (nic, value) => {
      nic.state.doorbellGvaHigh = value;
    },
  ],
  [REG.FEATURES, selectFeatures],
  [REG.DUMP_OFS, selectDumpOffset],
  [REG.EXT_ACK, acknowledge],
  [
    REG.EVENT,
    (nic, value) => {
      nic.state.events &= ~value;
    },
  ],
  [
    REG.VERDICT_INFO,
    (nic, value) => {
      nic.state.verdictInfo = value;
    },
  ],
  [REG.SET_VERDICT, takeVerdict],
  [
    REG.BLOB_LO,
    (nic, value) => {
      nic.state.blobLow = value;
    },
  ],
  [
    REG.BLOB_HI,
    (nic, value) => {
      nic.state.blobHigh = value;
      if (has(nic, ABILITY.BLOB)) nic.deliverBlob(value * 2 ** 32 + nic.state.blobLow);
      else nic.refuse("register", "blob asked for without the ability BLOB");
    },
  ],
  [
    REG.PAGES_LO,
    (nic, value) => {
      nic.state.pagesLow = value;
    },
  ],
  [
    REG.PAGES_HI,
    (nic, value) => {
      nic.state.pagesHigh = value;
      if (has(nic, ABILITY.CTX_PAGES)) nic.setContextPages(value * 2 ** 32 + nic.state.pagesLow);
      else nic.refuse("register", "page list given without the ability CTX_PAGES");
    },
  ],
]);

/** @param offset a multiple of 4 */
export function readRegister(nic: Nic, offset: number): number {
  return READ.get(offset)?.(nic) ?? 0;
}

/** @param offset a multiple of 4 */
export function writeRegister(nic: Nic, offset: number, value: number): void {
  const write = WRITE.get(offset);
  if (write !== undefined) write(nic, value);
  else nic.refuse("register", `write to register 0x${offset.toString(16)}: it takes none`);
}

function has(nic: Nic, ability: number): boolean {
  return (nic.state.abilities & ability) !== 0;
}

function programSize(nic: Nic): number {
  return (nic.programs.code.get(nic.state.programSelect as ProgramId)?.length ?? 0) / 8;
}

function selectQueue(nic: Nic, value: number): void {
  if (value < 2 * nic.config.pairs) nic.state.queueSelect = value;
  else nic.refuse("register", `queue ${value} selected of ${2 * nic.config.pairs}`);
}

function selectProgram(nic: Nic, value: number): void {
  if (value > MAX_PROGRAM_ID) {
    return nic.refuse("register", `program ${value} selected: there are ${MAX_PROGRAM_ID}`);
  }
  nic.state.programSelect = value;
  if (value !== 0 && nic.step === "driver found the device") nic.reached("programs fetched");
}

/** Refused as a whole where it holds a bit that was not offered, or while packets flow. */
function selectFeatures(nic: Nic, value: number): void {
  const { state, config } = nic;
  if ((value & ~offeredFeatures(config)) !== 0) {
    nic.refuse("features", `features 0x${value.toString(16)} were not offered`);
  } else if (nic.rxEnabled || nic.txEnabled) {
    nic.refuse("features", "features changed while the NIC is enabled");
  } else {
    state.selectedFeatures = value;
    state.featuresNegotiated = true;
    if (nic.step === "guest attached") nic.reached("driver found the device");
  }
}

function selectDumpOffset(nic: Nic, value: number): void {
  const { state } = nic;
  if (value <= Buffer.byteLength(state.dump)) state.dumpOffset = value & ~3;
  else nic.refuse("register", `dump offset ${value} is behind the dump`);
}

function dumpWord(dump: string, offset: number): number {
  const bytes = Buffer.alloc(4);
  Buffer.from(dump).copy(bytes, 0, offset);
  return bytes.readUInt32LE();
}

/** Abilities change what programs and contexts are, so not under a running driver. */
function acknowledge(nic: Nic, value: number): void {
  const { state } = nic;
  if ((value & ~OFFERED_ABILITIES) !== 0 || nic.rxEnabled || nic.txEnabled) {
    const abilities = `abilities 0x${value.toString(16)}`;
    return nic.refuse("register", `${abilities} were not offered, or the NIC is enabled`);
  }
  state.abilities = value;
  if (value !== 0 && nic.step === "guest attached") nic.reached("driver found the device");
}

const VERDICT_REASONS: Record<number, string> = {
  [VERDICT.REFUSED]: "refused a program",
  [VERDICT.MEMORY]: "ran out of memory",
  [VERDICT.FEATURE]: "cannot do without a feature",
  [VERDICT.ABORT]: "gave up",
};

function takeVerdict(nic: Nic, value: number): void {
  const reason = VERDICT_REASONS[value & 0xff];
  if (reason === undefined) {
    // READY is the other verdict that means something.
    if ((value & 0xff) !== VERDICT.READY) nic.refuse("register", `verdict ${value} means nothing`);
    return;
  }
  const { verdictInfo } = nic.state;
  const program = PROGRAM_NAMES[(verdictInfo >>> 24) - 1] ?? `${verdictInfo >>> 24}`;
  nic.refuse(
    "enable",
    `the guest ${reason} (program ${program}, instruction ${verdictInfo & 0xffffff})`,
  );
}
