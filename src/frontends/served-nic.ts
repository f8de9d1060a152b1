/**
 * The NIC for stock QEMU, as the harness of its worker runs it: device model and vfio-user server.
 */
import type { ProgramSets } from "../devices/program-set.ts";
import { Generation } from "../nic/generation.ts";
import { Nic } from "../nic/nic.ts";
import { startReplacement } from "../nic/replace.ts";
import { nicStatus } from "../nic/status.ts";
import type { SocketAccess } from "../os/unix-socket.ts";
import { COUNTERS } from "../vfio-user/counters.ts";
import type { VfioUserServer } from "../vfio-user/index.ts";
import { counted, droppedIn, pick, unsharedMemory } from "./complaints.ts";
import { NicEvents } from "./nic-events.ts";
import type { Frontend, Parts, Served, SetOrder } from "./served.ts";
import { nicTransfer } from "./transfer.ts";
import { VfioUserFrontend } from "./vfio-user.ts";

export interface ServedNicOptions {
  readonly nic: {
    readonly pairs: number;
    readonly rxBufs: number;
    readonly txBufs: number;
    readonly mac: Uint8Array;
    readonly mtu: number;
    readonly linkSpeed: number;
    readonly features?: number;
    readonly doorbellSize: number;
  };
  readonly socketPath: string;
  /** Who may connect to the socket. */
  readonly access?: SocketAccess;
  readonly pciDevice: number;
  /** Default: MSI-X. */
  readonly interrupts?: "msix" | "msi";
  readonly answerDelayMs?: number;
  /** Guest memory in files that cannot be sealed is used, too. */
  readonly allowUnsealed?: boolean;
  /** Default: true, the guest gets what its driver asks for; false: all packets. */
  readonly filtered?: boolean;
}

/** Counters of refusals and losses, as the log describes them. */
const REFUSED_BY_NIC = {
  register: "register writes refused",
  doorbell: "doorbells refused",
  programWindow: "writes to the program window refused",
  context: "contexts refused",
  blob: "requests for the program blob refused",
  features: "feature selections refused",
  enable: "enables refused, or the guest gave up",
  upgrade: "steps of a set's replacement refused",
  filter: "receive filters or addresses refused",
  rss: "flow hash settings refused",
} as const;
const REFUSED_BY_SERVER = pick(COUNTERS, [
  ...(["refusedMalformed", "refusedUnknown", "refusedState", "refusedRegion"] as const),
  ...(["refusedDma", "refusedIrq", "refusedReply"] as const),
]);
const LOST_BY_SERVER = pick(COUNTERS, ["strayDescriptors", "interruptsDropped", "lateAnswers"]);

export const servedNic: Frontend<ServedNicOptions> = {
  pairs: ({ nic }) => nic.pairs,
  serve: (options, parts) => {
    const nic = new Nic({ ...options.nic, device: parts.format }, parts.pairs);
    nic.filtered = options.filtered ?? true;
    const events = new NicEvents(nic, parts.log);
    const frontend = new VfioUserFrontend(nic, {
      // The socket of a NIC that is taken over listens already.
      ...(parts.takesOver ? {} : { socketPath: options.socketPath }),
      access: options.access,
      pciDevice: options.pciDevice,
      interrupts: options.interrupts,
      answerDelayMs: options.answerDelayMs,
      handled: () => events.look(),
      allowUnsealed: options.allowUnsealed,
      ...(parts.journal === undefined ? {} : { journal: parts.journal }),
      log: (text) => parts.log("info", text),
      onWarning: (code, text) => parts.log("warn", `${text} [${code}]`),
    });
    return {
      transfer: nicTransfer(nic, frontend.server, options.socketPath, () => events.skip()),
      control: frontend,
      fire: (vector) => nic.host?.fire(vector),
      status: (loop) => ({
        ...nicStatus(nic, loop, frontend.server.counters),
        step: frontend.step,
      }),
      verbs: verbsOf(nic, frontend, parts),
      complaints: complaintsOf(nic, frontend.server, parts.pairs),
      followLink: () => nic.link.follow(),
      housekeeping: () => {
        nic.upgrade.expire(performance.now());
        events.look();
        events.lookAtLink();
      },
      close: () => frontend.close(),
    };
  },
};

function verbsOf(nic: Nic, frontend: VfioUserFrontend, parts: Parts): Served["verbs"] {
  return {
    /** Gives the NIC the programs that it ships: clients wait at its socket until then. */
    ship: (sets: ProgramSets) => {
      nic.ship(sets);
      frontend.letIn();
    },
    "replace-set": ({ device, rxBufs, txBufs, features, ...order }: SetOrder) => {
      const format = parts.formatOf(device);
      // A port that was opened for packets without metadata has no room for it.
      const offered = parts.metadata ? features : 0;
      const set = { format, rxBufs, txBufs, features: offered };
      const { sets: programs, limitMs, mayLose } = order;
      startReplacement(nic, { set, programs, limitMs, mayLose });
      if (offered !== features) {
        parts.log("warn", "offloads stay off: the port was opened for a format without them");
      }
    },
    /** After a crash in the middle of a replacement, before the NIC is restored. */
    "prepare-set": ({ device, rxBufs, txBufs, features, sets }: SetOrder) => {
      const format = parts.formatOf(device);
      const offered = parts.metadata ? features : 0;
      nic.prepared = new Generation({ id: 1, format, rxBufs, txBufs, features: offered });
      nic.prepared.ship(sets);
    },
    "set-report": () => nic.upgrade.report,
    "set-filter": (filtered: boolean) => {
      nic.filtered = filtered;
      nic.useSettings();
    },
    "set-mtu": (mtu: number) => {
      const error = nic.link.setMtu(mtu);
      if (error !== null) throw new Error(error);
    },
  };
}

function complaintsOf(
  nic: Nic,
  server: VfioUserServer,
  pairs: Parts["pairs"],
): Served["complaints"] {
  const detail = (name: string): string =>
    name === "dropBadAddress" ? unsharedMemory(nic.host?.memory.ranges ?? []) : "";
  return [
    ...droppedIn(pairs, detail),
    ...counted(nic.refusals.counts, REFUSED_BY_NIC, (name) => nic.refusals.latest[name] ?? ""),
    ...counted(server.counters, REFUSED_BY_SERVER, () => server.lastRefusal),
    ...counted(server.counters, LOST_BY_SERVER),
  ];
}
