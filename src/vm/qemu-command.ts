/**
 * Composes QEMU's command line for a guest with vfio-user NICs.
 * Pure: touches neither files nor processes.
 */
import type { DiskImage } from "./disk-image.ts";
import { hasNumaMemory } from "./guest-memory.ts";

export type Accelerator = "kvm" | "tcg";

export type Boot =
  | { readonly kernel: string; readonly initrd?: string; readonly append?: string }
  /** `snapshot`: what the guest writes is lost at the end, the image stays as it is. */
  | { readonly disk: DiskImage; readonly snapshot?: boolean };

/** One `-device` in QEMU's JSON form; needs "driver". */
export type Device = { readonly driver: string } & Readonly<Record<string, unknown>>;

export interface Machine {
  /** Program, a name or a path. */
  readonly qemu: string;
  readonly accelerator: Accelerator;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly boot: Boot;
  readonly devices: readonly Device[];
  /** QEMU was built without what refuses live migration. */
  readonly withoutBlocker?: boolean;
  /** Appended as they are. */
  readonly extra?: readonly string[];
}

/**
 * Makes QEMU refuse live migration and snapshots of a running guest. Its vfio-user-pci registers no
 * migration blocker, and what the NIC writes is in no dirty log: without this, memory is corrupt
 * behind a migration that "completed". A writable vvfat node blocks migration, QEMU's refusal names
 * the node, and nothing is attached to it: no guest sees it. The folder only has to be small: QEMU
 * reads its list of names once.
 */
export const MIGRATION_BLOCKER = {
  driver: "vvfat",
  "node-name": "no-live-migration-with-bpfhv",
  dir: "/proc/self/ns",
  rw: true,
  "read-only": false,
} as const;

/**
 * The NIC as QEMU sees it. An original driver reads registers right after it wrote them and needs
 * writes that are answered (`originalDriver`); ours fences posted writes itself.
 */
export function vfioUserDevice(
  socket: string,
  options: { readonly id?: string; readonly originalDriver?: boolean; readonly bus?: string } = {},
): Device {
  return {
    driver: "vfio-user-pci",
    ...(options.id === undefined ? {} : { id: options.id }),
    ...(options.bus === undefined ? {} : { bus: options.bus }),
    socket: { type: "unix", path: socket },
    ...(options.originalDriver ? { "x-no-posted-writes": true } : {}),
  };
}

/** A slot that a NIC can be unplugged from: QEMU refuses to on the root bus. */
export function rootPort(id: string, chassis: number): Device {
  return { driver: "pcie-root-port", id, chassis };
}

/**
 * Program and arguments. The guest's RAM is a shared memfd, so that the NIC's process can map it;
 * or what `extra` gives to NUMA nodes: QEMU accepts one or the other.
 */
export function qemuCommand(machine: Machine): string[] {
  const ram = `${machine.memoryMiB}M`;
  const memory = hasNumaMemory(machine.extra ?? [])
    ? ["-machine", "q35"]
    : [
        ...["-object", `memory-backend-memfd,id=ram,size=${ram},share=on`],
        ...["-machine", "q35,memory-backend=ram"],
      ];
  return [
    machine.qemu,
    ...["-nodefaults", "-no-user-config", "-display", "none"],
    ...["-accel", machine.accelerator === "tcg" ? "tcg,thread=multi" : "kvm"],
    // Five-level paging costs an emulated guest time, and no guest of this size needs it.
    ...["-cpu", machine.accelerator === "tcg" ? "max,la57=off" : "host"],
    ...["-smp", String(machine.cpus), "-m", ram],
    ...memory,
    ...bootArguments(machine.boot),
    ...machine.devices.flatMap((device) => ["-device", JSON.stringify(device)]),
    ...blockerArguments(machine),
    ...(machine.extra ?? []),
  ];
}

function blockerArguments({ devices, withoutBlocker }: Machine): string[] {
  if (withoutBlocker || !devices.some(({ driver }) => driver === "vfio-user-pci")) return [];
  return ["-blockdev", JSON.stringify(MIGRATION_BLOCKER)];
}

function bootArguments(boot: Boot): string[] {
  if ("disk" in boot) {
    return [...diskArguments(boot.disk, boot.snapshot === true), "-device", DISK_DEVICE];
  }
  const initrd = boot.initrd === undefined ? [] : ["-initrd", boot.initrd];
  const append = boot.append === undefined ? [] : ["-append", boot.append];
  return ["-kernel", boot.kernel, ...initrd, ...append];
}

const DISK_DEVICE = '{"driver":"virtio-blk-pci","drive":"disk"}';

/**
 * Every layer is named, so that QEMU guesses no format from what the guest wrote, and no layer is
 * opened because the image names it.
 */
function diskArguments({ path, format, isDevice }: DiskImage, snapshot: boolean): string[] {
  const file = { driver: isDevice ? "host_device" : "file", filename: path };
  const image = { driver: format, file, ...(format === "qcow2" ? { backing: null } : {}) };
  if (!snapshot) return ["-blockdev", JSON.stringify({ "node-name": "disk", ...image })];
  // -snapshot does not reach a -blockdev. A comma in an option's value is doubled.
  const layers = `json:${JSON.stringify(image)}`.replaceAll(",", ",,");
  return ["-drive", `if=none,id=disk,snapshot=on,file=${layers}`];
}

/** For a POSIX shell: each word quoted where it must be. */
export function shellQuote(words: readonly string[]): string {
  return words
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(" ");
}

/**
 * "512", "512M", "2G" to MiB; undefined for anything else, or
 * for less than 32 MiB or more than 1 TiB.
 */
export function parseMemory(text: string): number | undefined {
  const match = /^(\d{1,7})(?:([MG])(?:iB)?)?$/i.exec(text);
  if (match === null) return undefined;
  const mebibytes = Number(match[1]) * (match[2]?.toUpperCase() === "G" ? 1024 : 1);
  return mebibytes >= 32 && mebibytes <= 2 ** 20 ? mebibytes : undefined;
}
