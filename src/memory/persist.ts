/**
 * Saves and restores the table of guest memory: ranges, and which file each is in. Descriptors go
 * beside the record, which names them by their place.
 */
import { fdTarget, fstat } from "../os/fd.ts";
import { mappingUnit, shrinkSeal } from "../os/memory.ts";
import {
  type ClaimedFds,
  RecordError,
  type RecordReader,
  readRecord,
  type SavedFds,
} from "./record.ts";
import {
  ADDRESS_END,
  MAX_FILES,
  mapWhole,
  type Region,
  type RegionFile,
  type RegionTable,
  UNSEALED,
} from "./regions.ts";

export interface RegionsRecord {
  readonly version: 1;
  readonly files: readonly {
    /** Place of the descriptor. */
    readonly fd: number;
    /** Device and inode of the file, as `MemoryFile.id`. */
    readonly id: string;
  }[];
  /** Sorted by address. */
  readonly ranges: readonly {
    readonly address: number;
    readonly size: number;
    readonly offset: number;
    readonly readable: boolean;
    readonly writable: boolean;
    /** Index of its file; -1: the process has no access to it. */
    readonly file: number;
    /** There is a file, which cannot be sealed and so is not used. */
    readonly unsealed: boolean;
  }[];
}

export function saveRegions(table: RegionTable, fds: SavedFds): RegionsRecord {
  const used = new Set(table.ranges.map((range) => range.file));
  const files = table.files.filter((file) => used.has(file));
  return {
    version: 1,
    files: files.map(({ fd, id }) => ({ fd: fds.add(fd), id })),
    ranges: table.ranges.map((range) => ({
      address: range.address,
      size: range.size,
      offset: range.fileOffset,
      readable: range.readable,
      writable: range.writable,
      file: range.file === null ? -1 : files.indexOf(range.file),
      unsealed: range.unreachable !== undefined,
    })),
  };
}

type FileRecord = RegionsRecord["files"][number];
type RangeRecord = RegionsRecord["ranges"][number];

/**
 * Checks a record and maps its files, for a table that is empty. Prepare it last: the files stay
 * mapped until the result is called.
 * @returns the function that restores the table, which does not fail; the descriptors are the
 * table's then
 * @throws RecordError; then nothing is mapped, and the descriptors stay the caller's
 */
export function prepareRegions(
  name: string,
  value: unknown,
  table: RegionTable,
  fds: ClaimedFds,
): () => void {
  const { files, ranges } = readRecord(name, value, 1, (record) => readTable(record, table, fds));
  const mapped: RegionFile[] = [];
  try {
    for (const [i, file] of files.entries()) {
      mapped.push(mapFileOf(`${name}.files[${i}]`, file, table));
    }
    const regions = ranges.map((range, i) => regionOf(`${name}.ranges[${i}]`, range, mapped));
    return () => table.adopt(mapped, regions);
  } catch (error) {
    for (const file of mapped) file.mapping.unmap();
    throw error;
  }
}

function readTable(record: RecordReader, table: RegionTable, fds: ClaimedFds) {
  const files = record.list("files", MAX_FILES, (item): FileRecord => {
    const fd = fds.claim(item, "fd");
    return fd < 0 ? item.refuse("fd", "a file has a descriptor") : { fd, id: item.text("id", 64) };
  });
  let end = 0;
  const used = new Set<number>();
  const ranges = record.list("ranges", table.maxRegions, (item): RangeRecord => {
    const range = readRange(item, table.granularity, files.length);
    if (range.address < end) item.refuse("address", "ranges are sorted and do not overlap");
    end = range.address + range.size;
    used.add(range.file);
    return range;
  });
  for (const i of files.keys()) {
    if (!used.has(i)) throw new RecordError(`${record.path}.files[${i}]: no range uses it`);
  }
  return { files, ranges };
}

function readRange(item: RecordReader, unit: number, files: number): RangeRecord {
  const range = {
    address: item.whole("address", 0, ADDRESS_END - 1),
    size: item.whole("size", 1, ADDRESS_END - 1),
    offset: item.whole("offset", 0, ADDRESS_END - 1),
    readable: item.flag("readable"),
    writable: item.flag("writable"),
    file: item.whole("file", -1, files - 1),
    unsealed: item.flag("unsealed"),
  };
  for (const field of ["address", "size", "offset"] as const) {
    if (range[field] % unit !== 0) item.refuse(field, `use a multiple of ${unit}`);
  }
  const { address, size, offset } = range;
  if (size > ADDRESS_END - address || size > ADDRESS_END - offset) {
    item.refuse("size", "the range ends behind 2^53");
  }
  if (range.unsealed && range.file >= 0) item.refuse("unsealed", "a file that is used is sealed");
  return range;
}

/** Maps the file behind a descriptor, which stays open in every case. */
function mapFileOf(path: string, { fd, id }: FileRecord, table: RegionTable): RegionFile {
  // First of all calls: only a memfd can be sealed, and calls to other files may block.
  if (shrinkSeal(fd) === "unsealable" && !(table.allowUnsealed && fdTarget(fd).startsWith("/"))) {
    throw new RecordError(`${path}.fd: ${fdTarget(fd)} cannot be sealed against shrinking`);
  }
  try {
    const { dev, ino, size } = fstat(fd);
    const found = `${dev}:${ino}`;
    if (found !== id) throw new RecordError(`${path}.id = "${id}": the descriptor is of ${found}`);
    return { dev, ino, id, unit: mappingUnit(fd), fd, ...mapWhole(fd, size) };
  } catch (error) {
    if (error instanceof RecordError) throw error;
    throw new RecordError(`${path}: cannot be mapped: ${(error as Error).message}`);
  }
}

function regionOf(path: string, record: RangeRecord, files: readonly RegionFile[]): Region {
  const { address, size, offset, readable, writable } = record;
  const range = { address, size, readable, writable, fileOffset: offset };
  if (record.file < 0) {
    const unreachable = record.unsealed ? { unreachable: UNSEALED } : {};
    return { ...range, host: 0, file: null, ...unreachable };
  }
  const file = files[record.file];
  const { address: base, length } = file.mapping;
  if (size > length - offset) {
    throw new RecordError(`${path}.size = ${size}: file ${file.id} has ${length} bytes`);
  }
  if (writable && !file.writable) {
    throw new RecordError(`${path}.writable = true: the descriptor is read only`);
  }
  return { ...range, host: base + offset, file };
}
