/** Two queue pairs on two CPUs: what a flow sends arrives in order, and two are no slower than one. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { patience } from "./harness.ts";
import { NicGuest } from "./nic-guest.ts";
import { isFull, withoutVm } from "./requirements.ts";

const skip = await withoutVm();
const SECONDS = isFull ? 5 : 1;
const ROUNDS = 3;

interface Report {
  readonly end: {
    readonly streams: readonly { readonly udp: { readonly out_of_order: number } }[];
    readonly sum: { readonly packets: number };
    readonly sum_received: { readonly bits_per_second: number };
  };
}

const start = (queues: number) =>
  NicGuest.start({
    label: `q${queues}`,
    multiQueue: queues > 1,
    serve: ["--queues", `${queues}`],
    guest: { smp: 2 },
  });

async function iperf(vm: NicGuest, flags: string): Promise<Report> {
  const output = await vm.guest.check(`iperf3 -J -c 10.88.0.1 -P 4 -t ${SECONDS} ${flags}`, {
    timeoutMs: 40_000,
  });
  return JSON.parse(output.slice(output.indexOf("{"))) as Report;
}

describe("two queue pairs", { skip, timeout: patience(300_000) }, () => {
  test("four flows of small packets each way: none is out of order, each queue carries some", async () => {
    const vm = await start(2);
    await vm.load();
    for (const way of ["", "-R"]) {
      const { end } = await iperf(vm, `-u -b 4M -l 200 ${way}`);
      assert.ok(end.sum.packets > 1000, `${end.sum.packets} packets`);
      for (const { udp } of end.streams) assert.equal(udp.out_of_order, 0);
    }
    const stats = await vm.guest.check("ethtool -S eth0");
    for (const queue of ["rx0", "rx1", "tx0", "tx1"]) {
      assert.match(stats, new RegExp(`${queue}_packets: [1-9]`));
      assert.match(stats, new RegExp(`${queue}_errors: 0`));
    }
    assert.deepEqual(await vm.close(), { aborted: false, serveCode: 0 });
  });

  const long = isFull ? false : "a comparison of throughput takes script/test --full";
  test("four TCP flows out: two pairs carry at least what one does", { skip: long }, async (t) => {
    const best: number[] = [];
    for (const queues of [1, 2]) {
      const vm = await start(queues);
      await vm.load();
      const rates: number[] = [];
      for (let n = 0; n < ROUNDS; n++) {
        rates.push((await iperf(vm, "")).end.sum_received.bits_per_second / 1e6);
      }
      best.push(Math.max(...rates));
      await vm.close();
    }
    t.diagnostic(`one pair: ${best[0]} Mb/s, two: ${best[1]} Mb/s`);
    // Machines with few CPUs are noisy.
    assert.ok(best[1] >= 0.9 * best[0], `${best[1]} Mb/s with two, ${best[0]} with one`);
  });
});
