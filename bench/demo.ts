/**
 * The demo: one guest on stock QEMU with several NICs (ours, and virtio-net with and without
 * offloads), the same traffic over each in alternating iterations, then one table.
 *
 *     node dist/bench/demo.js [--rounds N] [--seconds N] [--devices LIST] [--json FILE]
 *                             [--first N] [--twice]
 *
 * The last two are for the bench of the same traffic (rows/virtio-net.ts): which NIC begins, and
 * virtio-net measured a second time, as if it were another NIC. script/demo checks the options
 * before it prepares anything.
 */
import { writeFileSync } from "node:fs";
import { cpus, loadavg, release } from "node:os";
import { parseArgs } from "node:util";
import { findFormat } from "../src/devices/registry.ts";
import {
  buildModule,
  type Guest,
  Netns,
  prepareGuest,
  startGuest,
} from "../test/support/vm/harness.ts";
import { ServedNic } from "../test/support/vm/nic.ts";
import { withoutVm } from "../test/support/vm/requirements.ts";
import { Link } from "../test/support/vm/traffic.ts";
import { legend, MEASURES, medians, type Row, ratios, type Sample, table } from "./demo-results.ts";
import { describe, runEmbedded } from "./embedded.ts";
import { median } from "./harness/statistics.ts";

interface Contender {
  readonly nic: string;
  /** Device of `bpfhv serve`; undefined for virtio-net. */
  readonly device?: string;
  readonly offloads: boolean;
  /** MAC address of the interface in the guest. */
  readonly mac: string;
  readonly subnet: string;
  readonly samples: Sample[];
  /** Another measurement of that contender's NIC: a control. */
  readonly sameAs?: Contender;
}

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "2" },
    devices: { type: "string", default: "sring" },
    json: { type: "string" },
    first: { type: "string", default: "0" },
    twice: { type: "boolean", default: false },
  },
});
const [rounds, seconds] = [Number(flags.rounds), Number(flags.seconds)];

function say(text: string): void {
  const [bold, plain] =
    process.stderr.isTTY && !process.env.NO_COLOR ? ["\x1b[1m", "\x1b[0m"] : ["", ""];
  process.stderr.write(`${bold}==>${plain} ${text}\n`);
}

const problems: string[] = [];
function expect(held: boolean, what: string): void {
  if (held) return;
  problems.push(what);
  say(`FAILED: ${what}`);
}

/** Ours in the requested order, then virtio-net without and with offloads. */
const cards: Contender[] = [
  ...flags.devices.split(",").map((device) => ({
    nic: `bpfhv/${device}`,
    device,
    offloads: (findFormat(device)?.features ?? 0) !== 0,
  })),
  { nic: "virtio-net", offloads: false },
  { nic: "virtio-net", offloads: true },
].map((nic, i) => ({
  ...nic,
  mac: `52:54:00:b9:f0:0${i + 1}`,
  subnet: `10.77.${i + 1}`,
  samples: [],
}));
const again = cards
  .filter(({ device }) => flags.twice && device === undefined)
  .map((card) => ({ ...card, nic: `${card.nic} again`, samples: [], sameAs: card }));
const contenders: Contender[] = [...cards, ...again];
const ours = cards.filter(({ device }) => device !== undefined);

/** Number of pings in a burst each way, and of bursts per iteration. */
const BURST = 20;
const BURSTS = 3;

/** Measures one round trip time of a link: the mean of a few pings each way. */
async function roundTrip(link: Link, sample: Sample): Promise<number> {
  const there = await link.pingFromGuest(BURST);
  const here = link.pingFromHost(BURST);
  sample.lost += there.sent - there.received + here.sent - here.received;
  return (there.rttMs + here.rttMs) / 2;
}

/**
 * Steps of one iteration. Each measures all NICs before the next step, so that a slow minute of the
 * machine affects them alike.
 */
const STEPS: readonly ((link: Link, sample: Sample, seconds: number) => Promise<void>)[] = [
  // A first ping fills the ARP tables and wakes everything up. It is not measured.
  async (link) => void (await link.pingFromGuest(3)),
  async (link, sample, seconds) => {
    sample.tcpFromGuestMbps = await link.tcp("from guest", seconds);
  },
  async (link, sample, seconds) => {
    sample.tcpToGuestMbps = await link.tcp("to guest", seconds);
  },
  async (link, sample, seconds) => {
    const udp = await link.udp("from guest", seconds);
    Object.assign(sample, { udpFromGuest: udp, udpFromGuestPps: udp.pps });
  },
  async (link, sample, seconds) => {
    const udp = await link.udp("to guest", seconds);
    const { pps, nicPps } = udp;
    Object.assign(sample, { udpToGuest: udp, udpToGuestPps: pps, udpToGuestNicPps: nicPps });
  },
];

/**
 * Runs an iteration over all links, each time beginning with another
 * one, so that no link always runs first.
 */
async function measure(links: readonly Link[], round: number, seconds: number): Promise<Sample[]> {
  const order = links.map((_, i) => (i + round + Number(flags.first)) % links.length);
  const samples = links.map(() => ({
    ...(Object.fromEntries(MEASURES.map((m) => [m, 0])) as unknown as Sample),
    lost: 0,
  }));
  for (const step of STEPS) for (const i of order) await step(links[i], samples[i], seconds);
  const times: number[][] = links.map(() => []);
  for (let burst = 0; burst < BURSTS; burst++) {
    for (const i of order) times[i].push(await roundTrip(links[i], samples[i]));
  }
  for (const [i, sample] of samples.entries()) {
    Object.assign(sample, { rttMs: median(times[i]), burstsRttMs: times[i] });
  }
  return samples;
}

/** Returns the guest's name of the interface with that address. */
async function interfaceOf(guest: Guest, mac: string): Promise<string> {
  const path = await guest.check(`grep -l ${mac} /sys/class/net/*/address`);
  return path.trim().split("/")[4];
}

async function configure(guest: Guest, { mac, subnet }: Contender): Promise<void> {
  const name = await interfaceOf(guest, mac);
  await guest.check(`ip addr add ${subnet}.2/24 dev ${name} && ip link set ${name} up`);
}

/** Returns the interrupts of all vectors of a NIC so far, and its dropped packets. */
async function counts(guest: Guest, { mac, nic }: Contender): Promise<[number, number]> {
  const name = await interfaceOf(guest, mac);
  const device = await guest.check(`basename $(readlink -f /sys/class/net/${name}/device)`);
  // Ours have names by queue: "PCI-MSIX-0000:00:01.0 0-edge bpfhv-rx-0@pci:0000:00:01.0".
  const pattern = nic.startsWith("bpfhv") ? `${device.trim()} .*bpfhv-` : `${device.trim()}-`;
  const interrupts = await guest.check(
    `grep -e '${pattern}' /proc/interrupts | awk '{n += $2} END {print n + 0}'`,
  );
  const drops = await guest.check(
    `cd /sys/class/net/${name}/statistics && echo $(($(cat rx_dropped) + $(cat tx_dropped)))`,
  );
  return [Number(interrupts), Number(drops)];
}

async function reloadModule(guest: Guest, link: Link): Promise<void> {
  say("unloading and reloading the module");
  await guest.check("rmmod bpfhv && insmod /modules/bpfhv.ko");
  for (const nic of ours) await configure(guest, nic);
  const { sent, received } = await link.pingFromGuest(10);
  expect(received === sent, `after reloading the module ${sent - received} of ${sent} pings lost`);
}

async function run(): Promise<void> {
  const started = performance.now();
  const parts = await prepareGuest();
  const modules = await buildModule();
  const module = modules.find((path) => path.endsWith("/bpfhv.ko"));
  if (module === undefined) throw new Error("the module was not built");
  const netns = Netns.make("demo");
  for (const [i, { subnet }] of cards.entries()) {
    netns.addTap({ name: `tap${i}`, address: `${subnet}.1/24` });
  }
  const nics: ServedNic[] = [];
  try {
    for (const [i, { device, mac }] of ours.entries()) {
      say(`serving a NIC: bpfhv serve --device ${device}`);
      const words = ["--device", `${device}`, "--net", `tap:tap${i},netns=${netns.name}`];
      nics.push(await ServedNic.start(...words, "--mac", mac));
    }
    say("booting a Debian guest on stock QEMU");
    const guest = await startGuest({
      sockets: nics.map(({ socket }) => socket),
      virtioNics: cards.slice(ours.length).map(({ mac, offloads }, i) => ({
        tap: `tap${i + ours.length}`,
        netns: netns.name,
        mac,
        offloads,
      })),
      extraFiles: { "/modules/bpfhv.ko": module },
    });
    try {
      await guest.check("insmod /modules/bpfhv.ko");
      for (const card of cards) await configure(guest, card);
      const linkOf = new Map(
        cards.map((card) => {
          const [host, peer] = [`${card.subnet}.1`, `${card.subnet}.2`];
          return [card, new Link({ guest, netns, parts, host, peer })];
        }),
      );
      const links = contenders.map((each) => linkOf.get(each.sameAs ?? each)!);
      await traffic(links, rounds, seconds);
      const rows = await results(guest);
      await reloadModule(guest, links[0]);
      const log = await guest.check("dmesg | grep bpfhv");
      expect(
        /verified by the kernel/.test(log),
        "the guest's log says that its kernel verified the programs",
      );
      report(
        rows,
        log,
        await Promise.all(nics.map((nic) => nic.status())),
        (performance.now() - started) / 1000,
      );
    } finally {
      const exit = await guest.close();
      expect(!exit.aborted, "QEMU aborted");
    }
  } finally {
    for (const nic of nics) {
      const { code, signal } = await nic.stop();
      expect(code === 0, `bpfhv serve ended with ${code ?? signal}: ${nic.log}`);
    }
    netns.close();
  }
}

async function traffic(links: Link[], rounds: number, seconds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const samples = await measure(links, round, seconds);
    for (const [i, sample] of samples.entries()) {
      const contender = contenders[i];
      contender.samples.push(sample);
      say(
        `round ${round + 1}/${rounds} ${contender.nic} offloads ${contender.offloads ? "on" : "off"}: ` +
          MEASURES.map((m) => `${m} ${sample[m].toFixed(m === "rttMs" ? 2 : 0)}`).join(", "),
      );
      expect(sample.lost === 0, `${contender.nic} lost ${sample.lost} pings in round ${round + 1}`);
    }
  }
}

async function results(guest: Guest): Promise<Row[]> {
  const rows: Row[] = [];
  for (const contender of contenders) {
    const { nic, offloads, samples } = contender;
    const [interrupts, drops] = await counts(guest, contender);
    const lost = samples.reduce((sum, sample) => sum + sample.lost, 0);
    const row = { nic, offloads, medians: medians(samples), samples };
    rows.push({ ...row, lost, drops, interrupts });
  }
  return rows;
}

function report(rows: Row[], guestLog: string, status: unknown, tookSeconds: number): void {
  process.stdout.write(`\n${table(rows)}\n\n${legend(rounds, seconds)}\n`);
  process.stdout.write("from the guest's log:\n");
  for (const line of guestLog.split("\n").filter((l) => /verified/.test(l))) {
    process.stdout.write(`  ${line}\n`);
  }
  process.stdout.write(`took ${tookSeconds.toFixed(0)} s\n`);
  const ok = problems.length === 0;
  const ran = { rounds, secondsEach: seconds, tookSeconds, machine: machine() };
  writeJson({ ok, problems, ...ran, rows, ratios: ratios(rows), status });
}

/** Describes the machine, which affects all results. */
function machine(): object {
  const { model } = cpus()[0] ?? { model: "unknown" };
  const { node, v8 } = process.versions;
  return { cpu: model, cpus: cpus().length, load: loadavg(), kernel: release(), node, v8 };
}

/** Runs without a VM: the same NIC, with a guest inside this process. */
function runWithoutVm(reason: string): void {
  say(`no virtual machine: ${reason}`);
  say("showing the guest inside this process instead");
  const result = runEmbedded();
  const lost = result.sent - result.received;
  expect(lost === 0 && result.wrong === 0, `${lost} packets lost, ${result.wrong} wrong`);
  process.stdout.write(`\n${describe(result)}\n`);
  const { fromGuestPps, toGuestPps, rttMs } = result;
  const row = {
    ...{ nic: "bpfhv/sring (in process)", offloads: false, lost },
    medians: { udpFromGuestPps: fromGuestPps, udpToGuestPps: toGuestPps, rttMs },
  };
  writeJson({ rows: [row], ok: problems.length === 0, problems, withoutVm: reason });
}

function writeJson(content: object): void {
  if (flags.json === undefined) return;
  writeFileSync(flags.json, `${JSON.stringify(content, null, 2)}\n`);
}

try {
  const reason = await withoutVm();
  if (reason === false) await run();
  else runWithoutVm(reason);
} catch (error) {
  problems.push(String((error as Error).stack ?? error));
  say(`FAILED: ${(error as Error).message}`);
  writeJson({ rows: [], ok: false, problems });
}
process.exitCode = problems.length === 0 ? 0 : 1;
