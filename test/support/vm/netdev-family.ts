/** What a guest's kernel tells of a NIC's queues: the family "netdev" of generic netlink. */
import { buildGuestProgram } from "./guest-program.ts";
import type { Guest } from "./harness.ts";

/** The program's path in the guest. */
export const NETDEV_FAMILY = "/extra/netdev_family";

/** A number is -1 if the kernel does not tell it. */
export interface QueueView {
  readonly napi: number;
  readonly irq: number;
  readonly packets: number;
  readonly bytes: number;
  readonly stops: number;
}

export interface NetdevView {
  /** By "rx0", "tx0" and so on. */
  readonly queues: ReadonlyMap<string, QueueView>;
  readonly device: { readonly [way in "rx" | "tx"]?: { packets: number; bytes: number } };
}

/** Compiles the program for guests. @returns its path */
export const buildNetdevFamily = (folder: string): string =>
  buildGuestProgram(folder, "test/vm/netdev-family/netdev_family.c");

export async function netdevView(guest: Guest, name: string): Promise<NetdevView> {
  const text = await guest.check(`${NETDEV_FAMILY} ${name}`);
  const irqs = new Map<number, number>();
  for (const [, id, irq] of text.matchAll(/^napi (\d+) irq (-?\d+)$/gm))
    irqs.set(Number(id), Number(irq));
  const napis = new Map<string, number>();
  for (const [, way, id, napi] of text.matchAll(/^queue (\wx) (\d+) napi (-?\d+)$/gm))
    napis.set(way + id, Number(napi));
  const queues = new Map<string, QueueView>();
  const stats = /^qstats (\wx) (\d+) packets (-?\d+) bytes (-?\d+) stops (-?\d+)$/gm;
  for (const [, way, id, ...numbers] of text.matchAll(stats)) {
    const [packets, bytes, stops] = numbers.map(Number);
    const napi = napis.get(way + id) ?? -1;
    queues.set(way + id, { napi, irq: irqs.get(napi) ?? -1, packets, bytes, stops });
  }
  const device: NetdevView["device"] = Object.fromEntries(
    [...text.matchAll(/^qstats device (\wx) packets (-?\d+) bytes (-?\d+)$/gm)].map(
      ([, way, packets, bytes]) => [way, { packets: Number(packets), bytes: Number(bytes) }],
    ),
  );
  return { queues, device };
}
