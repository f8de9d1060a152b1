/** A NIC is unbound from its driver and bound again repeatedly, under a packet flood. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { patience } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const CYCLES = isFull ? 50 : 3;

/** Ends at the first cycle after which the host is unreachable, and prints the guest's state. */
const REBIND = `
cd /sys/bus/pci/drivers/bpfhv
device=$(basename $(dirname $(grep -l 0x0b9f /sys/bus/pci/devices/*/device)))
for i in $(seq $1); do
  (ping -q -f -s 1000 -c 3000 -w 2 10.88.0.1; iperf3 -c 10.88.0.1 -t 1 -R) >/dev/null 2>&1 &
  sleep 0.$((RANDOM % 9 + 1))
  echo $device >unbind; echo $device >bind
  ip addr add 10.88.0.2/24 dev eth0; ip link set eth0 up
  ping -q -f -s 1000 -c 2000 -w 1 10.88.0.1 >/dev/null 2>&1
  # The flood may be more than a slow guest takes: then answers wait behind a thousand packets in
  # the TAP's queue, a second or more, and some are dropped, but not twenty in a row.
  tries=0
  until ping -q -c 1 -W 5 10.88.0.1 >/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 20 ] && continue
    echo "no way to the host after $i cycles"
    ethtool -S eth0; ip -s link show eth0; cat /proc/interrupts; dmesg | tail -n 20
    exit 1
  done
  wait
done
`;

/** Binds while signals arrive as fast as possible. Prints their number. */
const SIGNALLED = `
cd /sys/bus/pci/drivers/bpfhv
device=$(basename $(dirname $(grep -l 0x0b9f /sys/bus/pci/devices/*/device)))
came=0
trap 'came=$((came + 1))' USR1
(while kill -USR1 $$; do :; done) 2>/dev/null & sender=$!
for i in 1 2 3 4 5; do
  echo $device >unbind; echo $device >bind || exit 1
done
kill $sender
echo $came
`;

for (const smp of isFull ? [1, 2] : [2]) {
  const timeout = patience(isFull ? 800_000 : 200_000);
  describe(`NIC and its driver with ${smp} CPUs`, { skip, timeout }, () => {
    let vm: NicGuest;

    before(async () => {
      vm = await NicGuest.start({
        label: `rebind${smp}`,
        guest: { smp, extraFiles: { "/extra/rebind": Buffer.from(REBIND) } },
      });
      await vm.load();
    });

    after(() => vm?.close());

    test(`pass packets after each of ${CYCLES} unbinds and binds under a flood`, async () => {
      // At most what a slow guest handles on one CPU: otherwise only interrupts run there.
      const stops = [vm.floodFromHost(patience(1)), vm.floodFromHost(patience(1))];
      const { status, output } = await vm.guest.run(`sh /extra/rebind ${CYCLES}`, {
        timeoutMs: 30_000 + CYCLES * 15_000,
      });
      for (const stop of stops) stop();
      assert.equal(status, 0, `${output}\n${JSON.stringify(await vm.nic.status())}`);
      await vm.calm();
      assert.equal(await vm.pings(5), 0);
    });

    test("bind succeeds when the shell gets signals during verification", async () => {
      const came = Number(await vm.guest.check(SIGNALLED, { timeoutMs: 60_000 }));
      assert.ok(came > 5, `${came} signals came`);
      await vm.configure();
      assert.equal(await vm.pings(5), 0);
    });
  });
}
