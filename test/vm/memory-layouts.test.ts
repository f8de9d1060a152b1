/** Guests behind a vIOMMU, and with RAM in the files of two NUMA nodes. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { DROP_COUNTERS } from "../../src/memory/counters.ts";
import { transferChecked } from "../support/vm/checked-tcp.ts";
import { untilAnswered } from "../support/vm/first-answer.ts";
import { isDebugKernel, patience } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const DEVICES = isFull ? ["sring_gso", "sring", "vring_packed"] : ["sring_gso"];
/** A mean that only large packets reach: the wire's largest is 1514. */
const LARGE = 4000;
const MIB = 8;

async function assertEnabled(vm: NicGuest): Promise<void> {
  const status = await vm.nic.status();
  assert.equal(status.step, "enabled", status.lastRefusal);
  assert.equal(status.programs, "verified");
}

async function assertNothingDropped(vm: NicGuest): Promise<void> {
  const { queues, refused, transport } = await vm.nic.status();
  for (const { queue, counters, broken } of queues) {
    assert.equal(broken, false);
    for (const name of DROP_COUNTERS) assert.equal(counters[name], 0, `${queue} ${name}`);
  }
  assert.deepEqual([refused.context, refused.enable, transport.refusedDma], [0, 0, 0]);
}

/**
 * busybox waits at least a second for the last reply. iputils waits for two round trips, and counts
 * a reply delayed by a busy machine as lost.
 */
async function assertPings(vm: NicGuest): Promise<void> {
  const ping = `busybox ping -q -c 40 -i 0.02 ${vm.link.host}`;
  const { output } = await vm.guest.run(`${untilAnswered(vm.link.host)}\n${ping}`);
  if (/^40 packets transmitted, 40 packets received/m.test(output)) return;
  const shown = await vm.guest.check("ip -s link show eth0; ethtool -S eth0 | grep -v ': 0$'");
  const queues = JSON.stringify((await vm.nic.status()).queues);
  assert.fail(`${output}; the guest's NIC: ${shown}; the server's queues: ${queues}`);
}

/** Returns the mean size of the packets that a queue moved during `action`. */
async function meanSize(vm: NicGuest, queue: string, action: () => Promise<unknown>) {
  const look = async () =>
    (await vm.nic.status()).queues.find((each) => each.queue === queue)!.counters;
  const then = await look();
  await action();
  const now = await look();
  return (now.bytes - then.bytes) / (now.packets - then.packets);
}

/**
 * One direction after the other, so that a queue's packets are data or acknowledgements, not both.
 */
async function assertLargePackets(vm: NicGuest): Promise<void> {
  const sent = await meanSize(vm, "tx0", () => transferChecked(vm, { upMiB: MIB }));
  const received = await meanSize(vm, "rx0", () => transferChecked(vm, { downMiB: MIB }));
  assert.ok(sent > LARGE && received > LARGE, `mean bytes: ${sent} sent, ${received} received`);
}

async function reload(vm: NicGuest, prefix = ""): Promise<void> {
  await vm.guest.check(`rmmod bpfhv && ${prefix} insmod /modules/bpfhv.ko`);
  await vm.configure();
  await assertEnabled(vm);
}

for (const device of DEVICES) {
  // caching-mode: QEMU learns of new mappings, too. strict: a buffer is unmapped at once.
  const iommu = ["-device", "intel-iommu,intremap=on,caching-mode=on"];
  const append = "intel_iommu=on iommu.passthrough=0 iommu.strict=1";

  describe(`${device} behind a vIOMMU`, { skip, timeout: patience(150_000) }, () => {
    let vm: NicGuest;

    before(async () => {
      vm = await NicGuest.start({
        label: "viommu",
        serve: [`--device=${device}`],
        guest: { qemuArguments: iommu, append },
      });
      await vm.load();
    });

    after(async () => {
      assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
    });

    test("NIC is enabled when its addresses are translated", async () => {
      const type = await vm.guest.check("cat /sys/class/net/eth0/device/iommu_group/type");
      assert.equal(type.trim(), "DMA");
      await assertEnabled(vm);
    });

    test("pings and TCP pass whole when every buffer is mapped and unmapped", async () => {
      const before = await vm.nic.status();
      const descriptors = vm.nic.openDescriptors;
      await assertPings(vm);
      await transferChecked(vm, { upMiB: MIB, downMiB: MIB });
      const { transport, queues } = await vm.nic.status();
      // With at most a doorbell per packet: one message maps its memory, one unmaps it.
      const messages = transport.messages - before.transport.messages;
      const sent = queues[1].counters.packets - before.queues[1].counters.packets;
      assert.ok(messages > 2 * sent, `${messages} messages for ${sent} packets sent`);
      // Each of those messages brought a descriptor.
      assert.ok(vm.nic.openDescriptors <= descriptors + 4, "descriptors are released");
      await assertNothingDropped(vm);
    });

    if (device === "sring_gso") {
      test("large packets pass whole when their fragments are mapped one by one", async () => {
        await assertLargePackets(vm);
        await assertNothingDropped(vm);
      });
    }

    test("NIC works again when the driver is loaded again", async () => {
      await reload(vm);
      await assertPings(vm);
      await transferChecked(vm, { upMiB: 1, downMiB: 1 });
      await assertNothingDropped(vm);
    });
  });
}

/**
 * Returns the resident KiB of each memory file of the guest: pages that the server has accessed.
 */
function residentByFile(pid: number): number[] {
  const files = new Map<string, number>();
  let inode: string | undefined;
  for (const line of readFileSync(`/proc/${pid}/smaps`, "utf8").split("\n")) {
    const mapping = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (\d+) +(.*)/.exec(line);
    if (mapping !== null)
      inode = mapping[2].startsWith("/memfd:memory-backend") ? mapping[1] : undefined;
    const resident = /^Rss: +(\d+) kB/.exec(line);
    if (resident === null || inode === undefined) continue;
    files.set(inode, (files.get(inode) ?? 0) + Number(resident[1]));
  }
  return [...files.values()];
}

const long = skip || (isFull ? false : "takes script/test --full");

describe("guest with a memory file per NUMA node", {
  skip: long,
  timeout: patience(150_000),
}, () => {
  // The harness doubles the memory of a debug kernel.
  const size = `${isDebugKernel ? 512 : 256}M`;
  const nodes = [0, 1].flatMap((node) => [
    ...["-object", `memory-backend-memfd,id=m${node},size=${size},share=on`],
    ...["-numa", `node,nodeid=${node},memdev=m${node},cpus=${node}`],
  ]);
  let vm: NicGuest;

  before(async () => {
    vm = await NicGuest.start({
      label: "numa",
      serve: ["--device=sring_gso"],
      guest: { qemuArguments: nodes, smp: 2, memoryMiB: 512 },
    });
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
  });

  test("pings and large packets pass whole when either node holds buffers", async () => {
    assert.equal((await vm.guest.check("cat /sys/devices/system/node/online")).trim(), "0-1");
    const rest = residentByFile(vm.nic.pid);
    assert.equal(rest.length, 2, "files that the server has mapped");
    await vm.guest.check("taskset -c 0 insmod /modules/bpfhv.ko");
    await vm.configure();
    await assertEnabled(vm);
    for (const cpu of [0, 1]) {
      const prefix = `taskset -c ${cpu}`;
      if (cpu > 0) await reload(vm, prefix);
      await assertPings(vm);
      await transferChecked(vm, { upMiB: MIB, downMiB: MIB, prefix });
    }
    await assertLargePackets(vm);
    await assertNothingDropped(vm);
    const touched = residentByFile(vm.nic.pid);
    for (const [i, kiB] of touched.entries())
      assert.ok(kiB > rest[i] + 1024, `file ${i}: ${rest[i]} KiB, then ${kiB} KiB`);
  });
});
