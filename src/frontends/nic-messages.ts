/** What the main thread and a NIC's worker say to each other. Plain data. */

import type { ProgramSets } from "../devices/program-set.ts";
import type { SpoofRules } from "../engine/spoof-guard.ts";
import type { PortSpec } from "../net/create.ts";
import type { NicStatus } from "../nic/status.ts";
import type { SocketAccess } from "../os/unix-socket.ts";

export interface NicWorkerData {
  readonly device: string;
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
  readonly port: PortSpec;
  readonly socketPath: string;
  /** Who may connect to the socket. */
  readonly access?: SocketAccess;
  readonly pciDevice: number;
  /** The process becomes another user once all is open. */
  readonly losesRights?: boolean;
  /** Default: MSI-X. */
  readonly interrupts?: "msix" | "msi";
  /** eventfd: the main thread signals it after each message. */
  readonly wakeFd: number;
  readonly spinUs?: number;
  readonly answerDelayMs?: number;
  /** Guest memory in files that cannot be sealed is used, too. */
  readonly allowUnsealed?: boolean;
  /** Frames in another's name are dropped. */
  readonly antiSpoof?: SpoofRules;
}

export type ToWorker =
  /** What the NIC ships. Clients are let in from then on. */
  | { readonly kind: "programs"; readonly sets: ProgramSets }
  | { readonly kind: "stop" }
  | { readonly kind: "status"; readonly id: number }
  /** Of a backend of the original's protocol: asks the VMM for an upgrade. */
  | { readonly kind: "signal-upgrade" }
  | { readonly kind: "set-port"; readonly id: number; readonly port: PortSpec }
  | { readonly kind: "set-mtu"; readonly id: number; readonly mtu: number };

export type ToMain =
  | { readonly kind: "ready" }
  | { readonly kind: "stopped" }
  | { readonly kind: "log"; readonly level: "info" | "warn"; readonly text: string }
  /** For standard output. */
  | { readonly kind: "print"; readonly text: string }
  | { readonly kind: "status"; readonly id: number; readonly status: NicStatus }
  /** What was to be changed: `error` says why it stays as it was, null that it is changed. */
  | { readonly kind: "changed"; readonly id: number; readonly error: string | null }
  | {
      readonly kind: "failed";
      readonly message: string;
      /** An error that has a code and says what to do; others are bugs and show their stack. */
      readonly expected: boolean;
      readonly stack: string;
    };
