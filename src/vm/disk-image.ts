/**
 * Checks a disk image's header before QEMU opens it. The first bytes of a raw image belong to the
 * guest, so they never choose a format: a guest that writes a qcow2 header there could name any
 * file of the host as backing file. Layout of qcow2: QEMU, docs/interop/qcow2.rst.
 */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";
import { failure } from "../errors.ts";

export const DISK_FORMATS = ["raw", "qcow2"] as const;
export type DiskFormat = (typeof DISK_FORMATS)[number];

interface Magic {
  readonly format: string;
  readonly at: number;
  readonly bytes: string;
}

/** The magic numbers that QEMU probes for (the `_probe` functions of its block drivers). */
const MAGICS: readonly Magic[] = [
  { format: "qcow2", at: 0, bytes: "QFI\xfb" },
  { format: "vmdk", at: 0, bytes: "KDMV" },
  { format: "vmdk", at: 0, bytes: "COWD" },
  { format: "vmdk", at: 0, bytes: "# Disk DescriptorFile" },
  { format: "vdi", at: 0x40, bytes: "\x7f\x10\xda\xbe" },
  { format: "vhdx", at: 0, bytes: "vhdxfile" },
  { format: "vpc", at: 0, bytes: "conectix" },
  { format: "qed", at: 0, bytes: "QED\0" },
  { format: "luks", at: 0, bytes: "LUKS\xba\xbe" },
  { format: "parallels", at: 0, bytes: "WithoutFreeSpace" },
  { format: "parallels", at: 0, bytes: "WithouFreSpacExt" },
  { format: "bochs", at: 0, bytes: "Bochs Virtual HD Image" },
  { format: "cloop", at: 0, bytes: "#!/bin/sh\n#V2.0 Format\n" },
];

const MAX_CLUSTER_BITS = 21;
const MIN_CLUSTER_BITS = 9;
/** Header and header extensions are in the first cluster. */
const MAX_HEADER = 2 ** MAX_CLUSTER_BITS;

const QCOW2 = {
  version: 4,
  backingOffset: 8,
  backingSize: 16,
  clusterBits: 20,
  incompatible: 72,
  headerLength: 100,
  v2Length: 72,
  v3Length: 104,
} as const;
const EXTERNAL_DATA_FILE = 1 << 2;
const EXTENSION = { end: 0, dataFile: 0x44415441 } as const;

/** The vmdk driver also accepts a text description that begins like this. */
const VMDK_TEXT = /^(?:#.*\n| *\r?\n)*version=[123]\r?\n/;
const MAX_PROBED = 2048;

/**
 * Returns the format that the first bytes claim, by QEMU's
 * magic numbers; undefined for anything else.
 */
export function claimedFormat(head: Uint8Array): string | undefined {
  const text = Buffer.from(head.buffer, head.byteOffset, Math.min(head.length, MAX_PROBED));
  const latin = text.toString("latin1");
  if (VMDK_TEXT.test(latin)) return "vmdk";
  return MAGICS.find(({ at, bytes }) => latin.startsWith(bytes, at))?.format;
}

/**
 * Returns why the image must not be opened as `format`, and what to do; undefined if it may be.
 * @param head the image's first bytes, up to 2 MiB
 */
export function headerProblem(head: Uint8Array, format: DiskFormat): string | undefined {
  const claimed = claimedFormat(head);
  if (format === "qcow2") {
    if (claimed !== "qcow2") return "it has no qcow2 header: use --disk-format raw";
    return qcow2Problem(head);
  }
  if (claimed === undefined) return undefined;
  const remedy =
    claimed === "qcow2"
      ? "use --disk-format qcow2 if you made it as one"
      : `if you made it as one, convert it: qemu-img convert -f ${claimed} -O raw IMAGE NEW`;
  return (
    `it begins as a ${claimed} image does, and --disk-format is raw: ${remedy}; ` +
    "if not, its guest wrote that, and the image must not be trusted"
  );
}

/** Reports a header that makes QEMU open other files, or that is invalid. */
function qcow2Problem(head: Uint8Array): string | undefined {
  const broken = "its qcow2 header is damaged: check it with qemu-img check -f qcow2";
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (head.length < QCOW2.v2Length) return broken;
  const version = view.getUint32(QCOW2.version);
  if (version !== 2 && version !== 3) {
    return `it is qcow2 of version ${version}: use one of version 2 or 3`;
  }
  if (view.getBigUint64(QCOW2.backingOffset) !== 0n || view.getUint32(QCOW2.backingSize) !== 0) {
    return `it has a backing file, a file of the host named by the image: ${flattened}`;
  }
  if (version === 3 && head.length < QCOW2.v3Length) return broken;
  // 64 bits, big-endian: the low half comes second.
  if (version === 3 && view.getUint32(QCOW2.incompatible + 4) & EXTERNAL_DATA_FILE) return external;
  const bits = view.getUint32(QCOW2.clusterBits);
  if (bits < MIN_CLUSTER_BITS || bits > MAX_CLUSTER_BITS) return broken;
  const start = version === 2 ? QCOW2.v2Length : view.getUint32(QCOW2.headerLength);
  if (version === 3 && (start < QCOW2.v3Length || start % 8 !== 0)) return broken;
  const found = findExtension(view, start, Math.min(head.length, 2 ** bits), EXTENSION.dataFile);
  return found === undefined ? broken : found ? external : undefined;
}

const flattened = "make one without: qemu-img convert -f qcow2 -O qcow2 IMAGE NEW";
const external = `it keeps its data in another file of the host, named by the image: ${flattened}`;

/** @returns true if the extension exists; undefined if the list exceeds `end` */
function findExtension(
  view: DataView,
  start: number,
  end: number,
  wanted: number,
): boolean | undefined {
  // Each step advances by at least 8 bytes.
  for (let at = start; at + 8 <= end; ) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === EXTENSION.end) return false;
    if (length > end - at - 8) return undefined;
    if (type === wanted) return true;
    at += 8 + Math.ceil(length / 8) * 8;
  }
  // The list may fill its cluster to the last byte, and then has no end mark.
  return start > end ? undefined : false;
}

/** A checked image, which QEMU may open. */
export interface DiskImage {
  readonly path: string;
  readonly format: DiskFormat;
  /** A block device instead of a file. */
  readonly isDevice: boolean;
}

/** @throws CommandError that says what is wrong with the image */
export function checkDisk(path: string, format: DiskFormat): DiskImage {
  const { head, stats } = readHead(path);
  const problem = headerProblem(head, format);
  if (problem !== undefined) throw failure(`${path}: ${problem}`);
  return { path, format, isDevice: stats.isBlockDevice() };
}

function readHead(path: string): { head: Uint8Array; stats: Stats } {
  let fd: number | undefined;
  try {
    // O_NONBLOCK: opening a FIFO waits for its writer.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stats = fstatSync(fd);
    if (!stats.isFile() && !stats.isBlockDevice()) {
      throw failure(`${path} is neither a file nor a block device: give a disk image`);
    }
    const head = Buffer.alloc(MAX_HEADER);
    const length = readSync(fd, head, 0, MAX_HEADER, 0);
    return { head: head.subarray(0, length), stats };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw failure(`cannot read ${path} (${code}): check the path and its permissions`);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
