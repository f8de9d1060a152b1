/** One guest on stock QEMU with our NICs and virtio-net, each on a TAP of its own. */
import { FORMATS } from "../../src/devices/registry.ts";
import {
  buildModule,
  type Guest,
  Netns,
  prepareGuest,
  startGuest,
} from "../../test/support/vm/harness.ts";
import { ServedNic } from "../../test/support/vm/nic.ts";
import { Link } from "../../test/support/vm/traffic.ts";

export interface Card {
  readonly name: string;
  /** Undefined for virtio-net. */
  readonly device?: string;
  readonly offloads: boolean;
}

/** Name of the virtio-net card with the same offloads. */
export const rivalOf = (offloads: boolean): string =>
  `virtio-net${offloads ? " with offloads" : ""}`;

export const OURS: readonly Card[] = FORMATS.map(({ name, features }) => ({
  ...{ name, device: name, offloads: features !== 0 },
}));
export const RIVALS: readonly Card[] = [false, true].map((offloads) => ({
  ...{ name: rivalOf(offloads), offloads },
}));
export const CARDS: readonly Card[] = [...OURS, ...RIVALS];

export interface AttachedCard extends Card {
  /** Its interfaces in the guest and on the host. */
  readonly dev: string;
  readonly tap: string;
  readonly link: Link;
  /** Undefined for virtio-net, which QEMU serves. */
  readonly server: ServedNic | undefined;
}

export interface GuestWithCards {
  readonly guest: Guest;
  readonly netns: Netns;
  readonly cards: readonly AttachedCard[];
}

const macOf = (n: number): string => `52:54:00:b9:f1:0${n + 1}`;
const subnetOf = (n: number): string => `10.78.${n + 1}`;

export interface CardOptions {
  /** Of all NICs and TAPs; the interfaces in the guest begin with 1500. */
  readonly mtu?: number;
  /** As of `startGuest`. */
  readonly extraFiles?: Readonly<Record<string, string>>;
}

/** Boots a guest with all cards, configured; everything ends with `use`. */
export async function withCards<T>(
  use: (all: GuestWithCards) => Promise<T>,
  { mtu = 1500, extraFiles = {} }: CardOptions = {},
): Promise<T> {
  const parts = await prepareGuest();
  const module = (await buildModule()).find((path) => path.endsWith("/bpfhv.ko"));
  if (module === undefined) throw new Error("the module was not built");
  const netns = Netns.make("bench");
  const servers: ServedNic[] = [];
  try {
    for (const [n, { device }] of CARDS.entries()) {
      netns.addTap({ name: `tap${n}`, address: `${subnetOf(n)}.1/24`, mtu });
      if (device === undefined) continue;
      const words = [
        "--device",
        device,
        "--mtu",
        `${mtu}`,
        "--net",
        `tap:tap${n},netns=${netns.name}`,
      ];
      servers.push(await ServedNic.start(...words, "--mac", macOf(n)));
    }
    const virtioNics = CARDS.flatMap(({ device, offloads }, n) =>
      device === undefined ? [{ tap: `tap${n}`, netns: netns.name, mac: macOf(n), offloads }] : [],
    );
    const guest = await startGuest({
      ...{ sockets: servers.map(({ socket }) => socket), virtioNics },
      extraFiles: { "/modules/bpfhv.ko": module, ...extraFiles },
    });
    try {
      await guest.check("insmod /modules/bpfhv.ko");
      const cards: AttachedCard[] = [];
      for (const [n, card] of CARDS.entries()) {
        const name = await configure(guest, n);
        const [host, peer] = [`${subnetOf(n)}.1`, `${subnetOf(n)}.2`];
        const link = new Link({ guest, netns, parts, host, peer });
        cards.push({ ...card, dev: name, tap: `tap${n}`, link, server: servers[n] });
      }
      return await use({ guest, netns, cards });
    } finally {
      await guest.close();
    }
  } finally {
    for (const server of servers) await server.stop();
    netns.close();
  }
}

async function configure(guest: Guest, n: number): Promise<string> {
  const path = await guest.check(`grep -l ${macOf(n)} /sys/class/net/*/address`);
  const name = path.trim().split("/")[4];
  await guest.check(`ip addr add ${subnetOf(n)}.2/24 dev ${name} && ip link set ${name} up`);
  return name!;
}
