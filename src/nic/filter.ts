/**
 * The receive filter that the driver asks for (ability FILTER): addresses that the guest listens
 * to. The first one is its own, which it sends from, too: a port that allows another source only
 * refuses it, so that the guest's user learns of it at once.
 *
 * In guest memory: mode u16, number of addresses u16, zero u32, then for each address its six bytes
 * and two zero bytes.
 */
import { FILTER_MODE, FILTER_RESULT, MAX_FILTER_ADDRESSES } from "../abi/index.ts";
import { type GuestMemory, readGuest, whyRefused } from "../memory/index.ts";
import type { RecordReader } from "../memory/record.ts";
import { formatMac } from "./config.ts";
import type { Nic } from "./nic.ts";
import { type FilterState, newFilterState } from "./state.ts";

const HEADER = 8;
const ENTRY = 8;
const MODES: readonly number[] = Object.values(FILTER_MODE);
const RESULTS: readonly number[] = Object.values(FILTER_RESULT);
const LAST_ADDRESS = 2 ** 48 - 1;
/** The bit of the first byte that multicast addresses have. */
const MULTICAST = 2 ** 40;

/** FILTER_STATE */
export function filterState({ state }: Nic): number {
  const { mode, result, addresses } = state.filter;
  return mode | (result << 8) | (addresses.length << 16);
}

/** Reads and uses the filter at a guest address; 0: everything passes. */
export function setFilter(nic: Nic, address: number): void {
  const { state, memory, refusals } = nic;
  const filter =
    address === 0
      ? newFilterState()
      : memory === null
        ? "bus mastering is off"
        : fetchFilter(memory, address);
  if (typeof filter === "string") {
    state.filter = { ...state.filter, result: FILTER_RESULT.INVALID };
    refusals.add("filter", `receive filter at 0x${address.toString(16)}: ${filter}`);
    return;
  }
  const [own] = filter.addresses;
  const problem = own === undefined ? null : ownAddressProblem(nic, own);
  if (problem !== null) {
    state.filter = { ...state.filter, result: FILTER_RESULT.ADDRESS };
    refusals.add("filter", problem);
    return;
  }
  state.filter = filter;
  nic.useSettings();
}

/** @returns a filter, or why there is none */
function fetchFilter(memory: GuestMemory, at: number): FilterState | string {
  const header = new Uint16Array(HEADER / 2);
  if (!readGuest(memory, at, new Uint8Array(header.buffer))) {
    return whyRefused(memory, at, HEADER, false);
  }
  const [mode, count, low, high] = header;
  if (!MODES.includes(mode)) return `mode ${mode}: use ${MODES.join(", ")}`;
  if ((low | high) !== 0) return "its reserved bytes are not zero";
  if (count < 1 || count > MAX_FILTER_ADDRESSES) {
    return `${count} addresses: use 1 to ${MAX_FILTER_ADDRESSES}`;
  }
  const bytes = new Uint8Array(count * ENTRY);
  if (!readGuest(memory, at + HEADER, bytes)) {
    return whyRefused(memory, at + HEADER, bytes.length, false);
  }
  const view = new DataView(bytes.buffer);
  const addresses = new Set<number>();
  for (let i = 0; i < bytes.length; i += ENTRY) {
    if (view.getUint16(i + 6) !== 0) return `address ${i / ENTRY} has more than six bytes`;
    addresses.add(view.getUint16(i) * 2 ** 32 + view.getUint32(i + 2));
  }
  const list = [...addresses];
  if (!isOwn(list[0])) return "its first address is not unicast";
  return { mode, result: FILTER_RESULT.OK, addresses: list };
}

function isOwn(address: number): boolean {
  return address !== 0 && Math.floor(address / MULTICAST) % 2 === 0;
}

/** The address that the NIC was given may stay, whatever a policy says: it drops what it must. */
function ownAddressProblem({ config, pairs }: Nic, own: number): string | null {
  const bytes = new Uint8Array(6);
  for (let i = 0, rest = own; i < 6; i++, rest = Math.floor(rest / 256)) bytes[5 - i] = rest % 256;
  const same = (mac: Uint8Array): boolean => mac.every((byte, i) => byte === bytes[i]);
  if (same(config.mac)) return null;
  for (const { port } of pairs) {
    const allowed = port.sourceAddress ?? null;
    if (allowed === null || same(allowed)) continue;
    return `address ${formatMac(bytes)}: --anti-spoof allows ${formatMac(allowed)} only`;
  }
  return null;
}

/** Reads the filter of a record. @throws RecordError */
export function readFilter(record: RecordReader): FilterState {
  const mode = record.whole("mode", 0, Math.max(...MODES));
  const result = record.whole("result", 0, RESULTS.length - 1);
  const addresses = record.wholes("addresses", MAX_FILTER_ADDRESSES, 0, LAST_ADDRESS);
  if (!MODES.includes(mode)) record.refuse("mode", `use ${MODES.join(", ")}`);
  if (addresses.length === 0 ? mode !== FILTER_MODE.ALL : !isOwn(addresses[0])) {
    record.refuse("addresses", "the first is the guest's own, a unicast address");
  }
  if (new Set(addresses).size !== addresses.length)
    record.refuse("addresses", "one is there twice");
  return { mode, result, addresses };
}
