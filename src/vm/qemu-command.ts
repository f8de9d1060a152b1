/**
 * Composes QEMU's command line for a guest with vfio-user NICs.
 * Pure: accesses neither files nor processes.
 */
import type { DiskImage } from "./disk-image.ts";
import { hasNumaMemory } from "./guest-memory.ts";

export type Accelerator = "kvm" | "tcg";

export type Boot =
  | { readonly kernel: string; readonly initrd?: string; readonly append?: string }
  /** `snapshot`: the guest's writes are discarded at the end, and the image is unchanged. */
  | { readonly disk: DiskImage; readonly snapshot?: boolean };

/** One `-device` in QEMU's JSON form. Needs "driver". */
export type Device = { readonly driver: string } & Readonly<Record<string, unknown>>;

export interface Machine {
  /** The program: a name or a path. */
  readonly qemu: string;
  readonly accelerator: Accelerator;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly boot: Boot;
  readonly devices: readonly Device[];
  /** QEMU was built without the block driver that refuses live migration. */
  readonly withoutBlocker?: boolean;
  /** Appended unchanged. */
  readonly extra?: readonly string[];
}

/**
 * Makes QEMU refuse live migration and snapshots of a running guest. Its vfio-user-pci registers no
 * migration blocker, and the NIC's writes are in no dirty log: without this, memory is corrupt
 * after a migration that "completed". A writable vvfat node blocks migration, and QEMU's refusal
 * names the node. It is attached to nothing, so the guest does not see it. The folder is small,
 * because QEMU reads its list of names once.
 */
export const MIGRATION_BLOCKER = {
  driver: "vvfat",
  "node-name": "no-live-migration-with-bpfhv",
  dir: "/proc/self/ns",
  rw: true,
  "read-only": false,
} as const;

/**
 * Returns the NIC as a QEMU device. An original driver reads registers right after it wrote them
 * and needs answered writes (`originalDriver`); this project's driver fences posted writes itself.
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

/** Returns a slot that a NIC can be unplugged from, which QEMU refuses on the root bus. */
export function rootPort(id: string, chassis: number): Device {
  return { driver: "pcie-root-port", id, chassis };
}

/**
 * Returns program and arguments. The guest's RAM is a shared memfd, so that the NIC's process can
 * map it, or the RAM that `extra` gives to NUMA nodes: QEMU accepts one or the other.
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
    // Five-level paging costs an emulated guest time, and a guest of this size does not need it.
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
 * Names every layer, so that QEMU neither probes the format of what the guest wrote, nor opens a
 * layer that the image names.
 */
function diskArguments({ path, format, isDevice }: DiskImage, snapshot: boolean): string[] {
  const file = { driver: isDevice ? "host_device" : "file", filename: path };
  const image = { driver: format, file, ...(format === "qcow2" ? { backing: null } : {}) };
  if (!snapshot) return ["-blockdev", JSON.stringify({ "node-name": "disk", ...image })];
  // -snapshot does not apply to a -blockdev. A comma in an option's value is doubled.
  const layers = `json:${JSON.stringify(image)}`.replaceAll(",", ",,");
  return ["-drive", `if=none,id=disk,snapshot=on,file=${layers}`];
}

/** Quotes words for a POSIX shell, if necessary. */
export function shellQuote(words: readonly string[]): string {
  return words
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(" ");
}

/**
 * Converts "512", "512M", "2G" to MiB; undefined for anything else, or
 * for less than 32 MiB or more than 1 TiB.
 */
export function parseMemory(text: string): number | undefined {
  const match = /^(\d{1,7})(?:([MG])(?:iB)?)?$/i.exec(text);
  if (match === null) return undefined;
  const mebibytes = Number(match[1]) * (match[2]?.toUpperCase() === "G" ? 1024 : 1);
  return mebibytes >= 32 && mebibytes <= 2 ** 20 ? mebibytes : undefined;
}
