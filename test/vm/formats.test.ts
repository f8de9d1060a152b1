/**
 * Ring formats in one guest with a NIC of each: boot, traffic both ways, down and up, reload.
 * VirtIO's packed ring, and a NIC in one file from outside the tree of sources. With the smallest
 * ring, indices pass its end and wrap bits change all the time.
 */
import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { DROP_COUNTERS } from "../../src/memory/counters.ts";
import {
  type Guest,
  type GuestParts,
  Netns,
  patience,
  prepareGuest,
  startGuest,
} from "../support/vm/harness.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { MODULE, modulePath } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";
import { Link } from "../support/vm/traffic.ts";

const skip = await withoutVm();
const EXAMPLE = fileURLToPath(new URL("../../../examples/mini-ring.ts", import.meta.url));
const SMALLEST = 16;

interface Format {
  readonly device: string;
  readonly bufs: number;
  /** Small UDP, too, at a rate that the guest's program can read. */
  readonly udp: boolean;
}

const FORMATS: readonly Format[] = [
  { device: "vring_packed", bufs: SMALLEST, udp: true },
  { device: "mini_ring", bufs: SMALLEST, udp: isFull },
  { device: "vring_packed", bufs: 256, udp: isFull },
];
const INDICES = FORMATS.map((_, i) => i);

const ROUNDS = isFull ? 5 : 2;

describe("ring formats in a guest", { skip, timeout: patience(isFull ? 300_000 : 200_000) }, () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-outside-"));
  const netns: Netns[] = [];
  const nics: ServedNic[] = [];
  const links: Link[] = [];
  let parts: GuestParts;
  let guest: Guest;

  before(async () => {
    parts = await prepareGuest();
    const outside = join(folder, "my-nic.ts");
    copyFileSync(EXAMPLE, outside);
    for (const i of INDICES) {
      netns.push(Netns.make(`format${i}`));
      netns[i].addTap({ name: "tap0", address: `10.88.${i}.1/24` });
      const device = FORMATS[i].device === "mini_ring" ? outside : FORMATS[i].device;
      const words = ["--device", device, "--bufs", `${FORMATS[i].bufs}`];
      nics.push(await ServedNic.start(`--net=tap:tap0,netns=${netns[i].name}`, ...words));
    }
    guest = await startGuest({
      sockets: nics.map(({ socket }) => socket),
      extraFiles: { [MODULE]: await modulePath() },
    });
    await load();
    for (const i of INDICES) {
      const [host, peer] = [`10.88.${i}.1`, `10.88.${i}.2`];
      links.push(new Link({ guest, netns: netns[i], parts, host, peer }));
    }
  });

  after(async () => {
    await guest?.close();
    const codes: (number | null)[] = [];
    for (const nic of nics) codes.push((await nic.stop()).code);
    for (const each of netns) each.close();
    rmSync(folder, { recursive: true, force: true });
    assert.equal((await guest.exit).aborted, false);
    assert.deepEqual(new Set(codes), new Set([0]));
  });

  const inEach = (script: (name: string, index: number) => string) =>
    guest.check(INDICES.map((i) => script(`eth${i}`, i)).join(" && "));

  async function load(): Promise<void> {
    await guest.check(`insmod ${MODULE}`);
    await inEach((name, i) => `ip addr add 10.88.${i}.2/24 dev ${name} && ip link set ${name} up`);
  }

  /** Pings every guest's interface until the returned function is called. */
  function floods(): () => void {
    const children = INDICES.map((i) => {
      const words = ["-q", "-i", "0.002", "-s", "200", `10.88.${i}.2`];
      const child = netns[i].spawn([parts.ping, ...words]);
      child.stdout?.resume();
      child.stderr?.resume();
      child.on("error", () => {});
      return child;
    });
    return () => {
      for (const child of children) child.kill("SIGKILL");
    };
  }

  async function traffic(index: number, udp: boolean): Promise<void> {
    const link = links[index];
    const out = await link.pingFromGuest(20);
    const back = link.pingFromHost(20);
    assert.deepEqual([out.received, back.received], [out.sent, back.sent]);
    assert.ok((await link.tcp("from guest", 1)) > 1);
    assert.ok((await link.tcp("to guest", 1)) > 1);
    if (udp) {
      assert.ok((await link.udp("from guest", 1)).pps > 100);
      assert.ok((await link.udp("to guest", 1, "500K")).pps > 100);
    }
    for (const { queue, counters, broken } of (await nics[index].status()).queues) {
      assert.equal(broken, false);
      for (const name of DROP_COUNTERS) assert.equal(counters[name], 0, `${queue} ${name}`);
      // Each lap inverts the wrap bit.
      assert.ok(counters.packets > 512, `${queue}: ${counters.packets} packets`);
    }
  }

  for (const [i, { device, bufs, udp }] of FORMATS.entries()) {
    test(`guest's kernel proves the programs of ${device} with ${bufs} buffers`, async () => {
      const { device: name, programs, features } = await nics[i].status();
      assert.deepEqual([name, programs, features], [device, "verified", []]);
      const shown = await guest.check(`ethtool -k eth${i}`);
      assert.match(shown, /^\s*tx-tcp-segmentation: off \[fixed\]$/m);
      assert.match(shown, /^\s*rx-checksumming: off \[fixed\]$/m);
    });

    test(`traffic passes both ways without drops when it is ${device} with ${bufs} buffers`, () =>
      traffic(i, udp));
  }

  test("NICs of each format work when they go down and up and reload in a flood", async () => {
    const stop = floods();
    for (let round = 0; round < ROUNDS; round++) {
      await inEach((name) => `ip link set ${name} down && ip link set ${name} up`);
    }
    for (let round = 0; round < ROUNDS; round++) {
      await guest.check("rmmod bpfhv");
      await load();
    }
    stop();
    for (const [i, { bufs }] of FORMATS.entries()) {
      if (isFull || bufs === SMALLEST) await traffic(i, isFull);
    }
  });
});
