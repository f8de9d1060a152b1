/** vfio-user requests of all types, mostly near valid ones, and mutations of them. */
import {
  BAR_DOORBELLS,
  BAR_MSIX,
  BAR_PROGRAM,
  BAR_REGISTERS,
  REG,
} from "../../../src/abi/index.ts";
import { message, pack, u32s, VERSION_PAYLOAD } from "../../support/vfio-user.ts";
import { GUEST_BYTES } from "./strange-fds.ts";

type Below = (limit: number) => number;
const ODD = [
  0, 1, 2, 3, 4, 5, 8, 16, 20, 24, 32, 4095, 4096, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff,
];
const odd = (below: Below): number => (below(4) === 0 ? below(2 ** 32) : ODD[below(ODD.length)]!);
const PAGES = GUEST_BYTES / 4096;
const CONFIG_REGION = 7;
const BARS = [BAR_REGISTERS, BAR_REGISTERS, BAR_REGISTERS, BAR_DOORBELLS, BAR_MSIX, BAR_PROGRAM];

const page = (below: Below): number => 4096 * below(below(4) === 0 ? 4 * PAGES : 8);
const bytesOf = (below: Below, count: number): Buffer =>
  Buffer.from(Array.from({ length: count }, () => below(256)));

function mapRequest(below: Below): Buffer {
  const flags = 1 + below(3);
  const fields = [page(below), page(below), below(2) === 0 ? GUEST_BYTES : page(below)] as const;
  const [offset, address, size] = fields;
  return message(2, pack([4, 32], [4, flags], [8, offset], [8, address], [8, size]));
}

function writeRequest(below: Below, region: number, offset: number, data: Buffer): Buffer {
  const head = pack([8, offset], [4, region], [4, data.length]);
  // Posted, as from QEMU, or answered.
  return message(10, Buffer.concat([head, data]), { flags: below(2) * 0x10 });
}

/** Writes a register, with a value that is valid for some of them. */
function registerWrite(below: Below): Buffer {
  const values = [below(2 ** 32), below(16), 2 ** below(32), 0xffffffff, page(below), 0];
  const offset = 4 * below(REG.EXT_END / 4 + 4);
  return writeRequest(below, BAR_REGISTERS, offset, u32s(values[below(values.length)]!));
}

const GENERATORS: ((below: Below) => Buffer)[] = [
  () => message(1, VERSION_PAYLOAD),
  mapRequest,
  mapRequest,
  (b) => message(3, pack([4, 24], [4, b(12) === 0 ? 2 : b(4)], [8, page(b)], [8, page(b)])),
  () => message(4, u32s(16, 0, 0, 0)),
  (b) => message(5, u32s(32, 0, b(11), 0, 0, 0, 0, 0)),
  (b) => message(7, u32s(16, 0, b(6), 0)),
  (b) => message(8, u32s(20, [0x24, 0x21, 0x22, 0x09, 0x11, b(256)][b(6)]!, b(4), b(6), b(4))),
  (b) => message(8, u32s(20, 0x24, 2, b(5), 1)),
  (b) => message(9, pack([8, b(4200)], [4, b(10)], [4, [1, 2, 4, 8, b(5000)][b(5)]!])),
  (b) => message(9, pack([8, 4 * b(64)], [4, BARS[b(BARS.length)]!], [4, 4])),
  (b) => writeRequest(b, b(10), b(4200), bytesOf(b, [1, 2, 4, 8, b(300)][b(5)]!)),
  registerWrite,
  registerWrite,
  registerWrite,
  (b) => writeRequest(b, BAR_DOORBELLS, 8 * b(6), u32s(0)),
  (b) => writeRequest(b, BAR_MSIX, 4 * b(24), u32s(odd(b))),
  (b) => writeRequest(b, CONFIG_REGION, 4, pack([2, [0x0406, 0x0006, 0x0002, b(65536)][b(4)]!])),
  (b) => writeRequest(b, CONFIG_REGION, b(256), u32s(odd(b))),
  (b) => message(b(6) === 0 ? 13 : 1 + b(16), Buffer.alloc(0)),
  (b) => message(b(20), bytesOf(b, b(64)), { flags: odd(b) }),
];

const MSIX = 2;
const FLAGS = { descriptors: 0x24, trigger: 0x21 } as const;

/** A request for one vector, which sets its descriptor or triggers it. */
export const setIrqs = (vector: number, what: keyof typeof FLAGS): Buffer =>
  message(8, u32s(20, FLAGS[what], MSIX, vector, 1));

/** Enables memory space and bus mastering, without INTx. */
export const busMaster = (): Buffer =>
  message(10, pack([8, 4], [4, CONFIG_REGION], [4, 2], [2, 0x0406]));

export const vfioUserMessage = (below: Below): Buffer =>
  GENERATORS[below(GENERATORS.length)]!(below);

/**
 * Half of the messages are unchanged; in others a byte, a
 * word, the length or the size field is wrong.
 */
export function damaged(bytes: Buffer, below: Below): Buffer {
  const kind = below(8);
  if (kind < 4) return bytes;
  if (kind === 4) bytes[below(bytes.length)] = below(256);
  else if (kind === 5) bytes.writeUInt32LE(odd(below), below(bytes.length >> 2) * 4);
  else if (kind === 6 && below(20) === 0) return bytes.subarray(0, below(bytes.length));
  else if (below(50) === 0) bytes.writeUInt32LE(odd(below), 4);
  return bytes;
}
