/**
 * XDP in the driver: small UDP packets per second that a program drops (counted in the guest), or
 * sends back with its addresses swapped (counted at the TAP), with a sender that does not wait.
 * Control: virtio-net without offloads, measured before and after the others.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Guest, type Netns, sleep } from "../../test/support/vm/harness.ts";
import { withoutVm } from "../../test/support/vm/requirements.ts";
import { buildXdpProgram, XDP_PROGRAM } from "../../test/support/vm/xdp.ts";
import type { Bench, Result, Sample, SampleOptions } from "../harness/bench.ts";
import { type AttachedCard, OURS, rivalOf, withCards } from "../harness/guest-nics.ts";
import { markdown, valueCell } from "../harness/report.ts";

const RIVAL = rivalOf(false);
const PROGRAMS = { DROP: "drop", TX: "bounce" } as const;
const ACTIONS = Object.keys(PROGRAMS) as (keyof typeof PROGRAMS)[];
const WARM_MS = 500;

/** Sends datagrams of 64 bytes to the discard port as fast as Node can. */
const SENDER = `
const socket = require("node:dgram").createSocket("udp4");
const data = Buffer.alloc(64);
const again = () => {
  for (let i = 0; i < 63; i++) socket.send(data, () => {});
  socket.send(data, () => setImmediate(again));
};
socket.on("error", () => {});
socket.connect(9, process.argv[1], again);
`;

async function received(guest: Guest, { dev }: AttachedCard): Promise<number> {
  return Number(await guest.check(`cat /sys/class/net/${dev}/statistics/rx_packets`));
}

function sentBack(netns: Netns, { tap }: AttachedCard): number {
  return Number(netns.exec(["ip", "-s", "-j", "link", "show", tap]).match(/"packets":(\d+)/)?.[1]);
}

/** @returns packets per second */
async function measure(
  { guest, netns }: { readonly guest: Guest; readonly netns: Netns },
  card: AttachedCard,
  action: keyof typeof PROGRAMS,
  seconds: number,
): Promise<number> {
  const count = async (): Promise<number> =>
    action === "DROP" ? received(guest, card) : sentBack(netns, card);
  const mac = (await guest.check(`cat /sys/class/net/${card.dev}/address`)).trim();
  const neighbour = [card.link.peer, "lladdr", mac, "dev", card.tap, "nud", "permanent"];
  netns.exec(["ip", "neigh", "replace", ...neighbour]);
  await guest.check(`${XDP_PROGRAM} ${card.dev} ${PROGRAMS[action]} 2>&1`);
  const sender = netns.spawn([process.execPath, "-e", SENDER, card.link.peer]);
  try {
    await sleep(WARM_MS);
    const before = await count();
    const start = performance.now();
    await sleep(1000 * seconds);
    const packets = (await count()) - before;
    return packets / ((performance.now() - start) / 1000);
  } finally {
    sender.kill("SIGKILL");
    await guest.check(`${XDP_PROGRAM} ${card.dev} off 2>&1`);
  }
}

async function sample(_part: string, { quick }: SampleOptions): Promise<Sample> {
  const folder = mkdtempSync(join(tmpdir(), "bench-xdp-"));
  const seconds = quick ? 1 : 5;
  try {
    const extraFiles = { [XDP_PROGRAM]: buildXdpProgram(folder) };
    return await withCards((all) => compare(all, seconds), { extraFiles });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function compare(
  all: { readonly guest: Guest; readonly netns: Netns; readonly cards: readonly AttachedCard[] },
  seconds: number,
): Promise<Sample> {
  const values: Record<string, number> = {};
  const controls: Record<string, readonly [number, number]> = {};
  const rival = all.cards.find(({ name }) => name === RIVAL)!;
  for (const { device, offloads, dev } of all.cards) {
    if (device && offloads) await all.guest.check(`ethtool -K ${dev} rx-gro-hw off`);
  }
  for (const action of ACTIONS) {
    const first = await measure(all, rival, action, seconds);
    for (const card of all.cards) {
      if (!card.device) continue;
      values[`${card.name}/${action}`] = await measure(all, card, action, seconds);
    }
    controls[`${RIVAL}/${action}`] = [first, await measure(all, rival, action, seconds)];
    values[`${RIVAL}/${action}`] = first;
  }
  return { values, controls };
}

function table(result: Result): string {
  return markdown([
    ["NIC", ...ACTIONS.map((action) => `${action}, packets/s (to virtio-net)`)],
    ...[...OURS.map(({ name }) => name), RIVAL].map((name) => [
      name,
      ...ACTIONS.map((action) => valueCell(result, `${name}/${action}`)),
    ]),
  ]);
}

export const bench: Bench = {
  name: "xdp",
  about: "packets that an XDP program drops or sends back in the guest, ours beside virtio-net",
  vm: true,
  rounds: 3,
  limit: 0.2,
  seconds: 200,
  parts: ["all NICs"],
  rows: [
    ...ACTIONS.map((action) => ({
      ...{ name: `${RIVAL}/${action}`, unit: "packets/s", control: `${RIVAL}/${action}` },
    })),
    ...OURS.flatMap(({ name }) =>
      ACTIONS.map((action) => ({
        ...{ name: `${name}/${action}`, unit: "packets/s" },
        ...{ baseline: `${RIVAL}/${action}`, control: `${RIVAL}/${action}` },
      })),
    ),
  ],
  problem: async () => (await withoutVm()) || undefined,
  sample,
  tables: { "": table },
};
