/**
 * The spec of a NIC: what it should be. One table says of each field what it takes, its default,
 * its option on the command line, and what a change costs; command line, files, API and
 * documentation are made from it. How to add a field or a verb: README.md.
 */
import { basename, resolve } from "node:path";
import { MAX_QUEUE_PAIRS, validQueueBufs } from "../abi/index.ts";
import { DEFAULT_FORMAT, FORMAT_NAMES } from "../devices/registry.ts";
import { DEFAULT_SPIN_US } from "../engine/loop.ts";
import { isOffloadWord, OFFLOAD_WORDS } from "../memory/offloads.ts";
import { PORT_KINDS, parsePort } from "../net/create.ts";
import { POLICY_KINDS, parsePolicy } from "../net/policies/index.ts";
import { RATE_USAGE, type RateSpec, rateLimit } from "../net/policies/rate-limit.ts";
import { ANTI_SPOOF_HELP, antiSpoof } from "../net/policies/spoof-guard.ts";
import { formatMac, LINUX_MTU, MAX_MTU, MIN_MTU, parseMac } from "../nic/config.ts";
import type { Field, LiveChange, Schema, Value } from "./field.ts";
import { machineMac } from "./mac.ts";

export interface NicSpec {
  readonly name: string;
  readonly socket: string;
  readonly device: string;
  readonly programs: string;
  readonly port: string;
  readonly policies: readonly string[];
  readonly rate: string;
  readonly link: string;
  readonly filter: string;
  readonly mtu: number;
  readonly maxMtu: number;
  readonly mac: string;
  readonly queues: number;
  readonly rxBufs: number;
  readonly txBufs: number;
  readonly offloads: readonly string[];
  readonly interrupts: string;
  readonly speed: number;
  readonly loop: string;
  readonly spin: number;
  readonly originalId: boolean;
  readonly allowUnverified: boolean;
  readonly allowUnsealed: boolean;
  readonly acceptLoss: boolean;
  readonly answerDelay: number;
}

export type FieldName = keyof NicSpec;

/** The longest port; a source's content is in it. */
const MAX_PORT = 8192;
const MAX_POLICIES = 8;
/** The fastest that Linux has a name for (uapi/linux/ethtool.h, SPEED_800000). */
const MAX_SPEED = 800_000;
/** A tenth of a second: longer, and a core is burnt for no packet. */
const MAX_SPIN_US = 100_000;
/** QEMU gives up after five seconds. */
const MAX_ANSWER_DELAY_MS = 4000;
const ALL = "all";
/** Stands for the NIC's own when a policy is only checked. */
const ANY_MAC = new Uint8Array(6);
const OFFLOADS = [...Object.keys(OFFLOAD_WORDS), ALL];

const whole = (minimum: number, maximum: number): Schema => ({ type: "integer", minimum, maximum });
const text = (maxLength: number, pattern?: string): Schema => ({
  ...{ type: "string", maxLength },
  ...(pattern === undefined ? {} : { pattern }),
});
const oneOf = (...words: string[]): Schema => ({ type: "string", maxLength: 64, enum: words });
const list = (maxItems: number): Schema => ({
  ...{ type: "array", maxItems, items: { type: "string", maxLength: 1024 } },
});
const FLAG: Schema = { type: "boolean" };

/** What the worker calls the replacement of programs and rings; all its fields are one change. */
export const REPLACE = "replace-set";
const replaced = <V>(): LiveChange<V, NicSpec> => ({
  ...{ verb: REPLACE, body: (value) => value, told: () => "" },
});
const READ_ONCE = "the guest's driver reads it once, when it finds the NIC";
const ON_START = "it is set up when the NIC starts";
const IDENTITY = "it is what the NIC is found by";

const NO_RATE = "none";

/** The rate limits as a worker takes them. @throws PortSpecError */
export function rateOf(text: string): RateSpec | null {
  return text === NO_RATE ? null : rateLimit.parse(text, { mac: null });
}

export const isLinkUp = (link: string): boolean => link !== "down";
export const isFilterUsed = (filter: string): boolean => filter !== "off";

/** Longest spin of the worker's loop, in microseconds. */
export function spinOf({ loop, spin }: Pick<NicSpec, "loop" | "spin">): number {
  return loop === "busy" ? Number.POSITIVE_INFINITY : spin;
}

/** In the order in which they are shown. */
export const FIELDS: { readonly [Name in FieldName]: Field<NicSpec[Name], NicSpec> } = {
  name: {
    about: "name among the NICs of a process: letters, digits, and . _ - behind the first",
    schema: text(64, "^[A-Za-z0-9][A-Za-z0-9._-]*$"),
    default: ({ socket = "" }) => nameOf(socket),
    ...{ defaultWords: "from the socket's path", option: "--name <name>", change: IDENTITY },
  },
  socket: {
    about: "UNIX socket that QEMU's vfio-user-pci connects to",
    schema: text(4096),
    default: () => "",
    ...{ defaultWords: "none: give one", option: "--socket <path>", change: IDENTITY },
  },
  device: {
    about: `ring format: ${FORMAT_NAMES}, or a module (./my-nic.ts)`,
    schema: text(4096),
    ...{ default: DEFAULT_FORMAT, option: "--device <name>", change: replaced() },
  },
  programs: {
    about: "programs that the guest gets: built-in, those of the device",
    schema: oneOf("built-in"),
    ...{ default: "built-in", option: "--programs <which>", change: "the device decides it" },
  },
  port: {
    about: `where packets go: ${PORT_KINDS}`,
    schema: text(MAX_PORT),
    ...{ default: "sink", option: "--net <port>" },
    check: (port) => void parsePort(port),
    change: {
      ...{ verb: "set-port", body: parsePort },
      told: (_from, _to, { port, link }) => `packets to ${port}, link ${link}`,
    },
  },
  policies: {
    about: `between ring and port, in this order: ${POLICY_KINDS}`,
    schema: list(MAX_POLICIES),
    ...{ default: [], option: "--anti-spoof <rules>", optionAbout: ANTI_SPOOF_HELP },
    words: {
      read: (rules) => [`${antiSpoof.name}:${rules}`],
      write: ([policy = ""]) => policy.slice(antiSpoof.name.length + 1),
    },
    check: (policies) => void policies.map((each) => parsePolicy(each, { mac: ANY_MAC })),
    change: {
      verb: "set-policies",
      body: (policies, { mac }) =>
        policies.map((each) => parsePolicy(each, { mac: parseMac(mac) })),
      told: (_from, to) => `policies: ${to.join(" ") || "none"}`,
    },
  },
  rate: {
    about: `rate limits: ${RATE_USAGE}`,
    schema: text(256),
    ...{ default: NO_RATE, option: "--rate <limits>" },
    check: (rate) => void rateOf(rate),
    change: {
      ...{ verb: "set-rate", body: rateOf },
      told: (_from, to) => `rate limits: ${to}`,
    },
  },
  link: {
    about: "port: up when the port's is; down: held down, and nothing passes",
    schema: oneOf("port", "down"),
    ...{ default: "port", option: "--link <which>" },
    change: {
      ...{ verb: "set-link", body: isLinkUp },
      told: (_from, _to, { link }) => `link ${link}`,
    },
  },
  filter: {
    about: "received packets: guest: those that its driver asks for; off: all",
    schema: oneOf("guest", "off"),
    ...{ default: "guest", option: "--filter <which>" },
    change: {
      ...{ verb: "set-filter", body: isFilterUsed },
      told: (_from, to) => `receive filter: ${to}`,
    },
  },
  mtu: {
    about: "MTU that the guest may use; without Ethernet header and VLAN tags",
    schema: whole(MIN_MTU, MAX_MTU),
    ...{ default: 1500, option: "--mtu <bytes>" },
    change: { verb: "set-mtu", body: (mtu) => mtu, told: mtuOutcome },
  },
  maxMtu: {
    about: "largest MTU that the NIC can be given while it runs",
    schema: whole(MIN_MTU, MAX_MTU),
    default: ({ mtu = 1500 }) => mtu,
    ...{ defaultWords: "the MTU", option: "--max-mtu <bytes>", change: READ_ONCE },
  },
  mac: {
    about: "MAC address",
    schema: text(17),
    default: ({ socket = "" }) => formatMac(machineMac(resolve(socket))),
    ...{ defaultWords: "from machine and socket's path", option: "--mac <address>" },
    check: (mac) => void parseMac(mac),
    change: READ_ONCE,
  },
  queues: {
    about: "queue pairs",
    schema: whole(1, MAX_QUEUE_PAIRS),
    ...{ default: 1, option: "--queues <n>", change: READ_ONCE },
  },
  rxBufs: bufs("receive", "--rx-bufs <n>"),
  txBufs: bufs("transmit", "--tx-bufs <n>"),
  offloads: {
    about: `offered to the guest: ${OFFLOADS.join(",")} (those that the device has), or none`,
    schema: list(OFFLOADS.length),
    ...{ default: [ALL], option: "--offloads <list>" },
    words: {
      read: (words) => (words === "none" ? [] : words.split(",")),
      write: (words) => words.join(",") || "none",
    },
    check: checkOffloads,
    change: replaced(),
  },
  interrupts: {
    about: "msix; or msi: slower, but QEMU can unplug the NIC (docs/qemu.md)",
    schema: oneOf("msix", "msi"),
    ...{ default: "msix", option: "--interrupts <kind>", change: READ_ONCE },
  },
  speed: {
    about: "link speed that the guest reports, in Mb/s; 0: unknown",
    schema: whole(0, MAX_SPEED),
    // As a TAP interface of the host says; without one, bonds do not aggregate links (802.3ad).
    ...{ default: 10_000, option: "--speed <mbps>", change: READ_ONCE },
  },
  loop: {
    about: "adaptive: spins before it sleeps, as long as that pays; busy: never sleeps",
    schema: oneOf("adaptive", "busy"),
    ...{ default: "adaptive", option: "--loop <mode>" },
    change: {
      verb: "set-spin",
      body: (loop, spec) => spinOf({ ...spec, loop: `${loop}` }),
      told: (_from, to) => `loop: ${to}`,
    },
  },
  spin: {
    about: "longest spin before sleeping, in microseconds",
    schema: whole(0, MAX_SPIN_US),
    ...{ default: DEFAULT_SPIN_US, option: "--spin <us>" },
    change: {
      verb: "set-spin",
      body: (spin, spec) => spinOf({ ...spec, spin }),
      told: (_from, to) => `spin: ${to} us`,
    },
  },
  originalId: {
    about: "use the original's PCI id (1b36:000e) instead of ours",
    schema: FLAG,
    ...{ default: false, option: "--original-id", change: READ_ONCE },
  },
  allowUnverified: {
    about: "ship programs even if the verifier refuses them",
    schema: FLAG,
    ...{ default: false, option: "--allow-unverified", change: ON_START },
  },
  allowUnsealed: {
    about: "also use guest RAM in files that QEMU could shrink",
    schema: FLAG,
    ...{ default: false, option: "--allow-unsealed", change: ON_START },
  },
  acceptLoss: {
    about: "upgrades may restart the interface of a driver without OVERLAP, which loses packets",
    schema: FLAG,
    ...{ default: false, option: "--accept-loss", change: ON_START },
  },
  answerDelay: {
    about: "answer the VMM this late, in milliseconds (for tests)",
    schema: whole(0, MAX_ANSWER_DELAY_MS),
    ...{ default: 0, option: "--answer-delay <ms>", change: ON_START, hidden: true },
  },
};

export const FIELD_NAMES = Object.keys(FIELDS) as FieldName[];

/** A row of the table, of whatever type its values are. */
export function fieldOf(name: FieldName): Field<Value, NicSpec> {
  // Each row takes values of its own type only; its callers take them from the same field.
  return FIELDS[name] as unknown as Field<Value, NicSpec>;
}

function bufs(direction: string, option: string): Field<number, NicSpec> {
  return {
    about: `buffers per ${direction} queue: a power of two`,
    schema: whole(16, 8192),
    ...{ default: 256, option, change: replaced() },
    check: (count) => {
      if (!validQueueBufs(count)) throw new Error("use a power of two from 16 to 8192");
    },
  };
}

/** `/run/vm1.sock`: vm1. */
function nameOf(socket: string): string {
  const words = basename(socket)
    .replace(/\.sock(et)?$/, "")
    .replace(/[^A-Za-z0-9._-]/g, "_");
  return words.replace(/^[^A-Za-z0-9]+/, "").slice(0, 64) || "nic";
}

function checkOffloads(words: readonly string[]): void {
  for (const word of words) {
    if (!isOffloadWord(word) && word !== ALL) {
      const alone = word === "none" ? "none stands alone" : `there are ${OFFLOADS.join(", ")}`;
      throw new Error(`unknown offload "${word}": ${alone}`);
    }
  }
  if (words.includes(ALL) && words.length > 1) throw new Error("all stands alone");
}

/** What the guest does: its driver follows down, and its administrator raises it again. */
export function mtuOutcome(before: number, mtu: number): string {
  const most = mtu > LINUX_MTU ? `; Linux guests may take ${LINUX_MTU} at most` : "";
  if (mtu <= before) return `MTU ${mtu}: the guest follows${most}`;
  const asked = Math.min(mtu, LINUX_MTU);
  const how = `raise it there: ip link set dev INTERFACE mtu ${asked}`;
  return `MTU ${mtu} at most: the guest stays at what it has, ${how}${most}`;
}
