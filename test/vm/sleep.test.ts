/**
 * A guest is suspended to memory and resumed: its devices
 * lose their state, and the driver restarts.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ALARM } from "../support/vm/alarms.ts";
import { untilAnswered } from "../support/vm/first-answer.ts";
import { patience, until } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();

/** Prints to the console: the agent's port does not survive suspend. */
const SLEEP = `
{
  sleep 0.5
  echo mem >/sys/power/state
  ${untilAnswered("10.88.0.1")}
  ping -q -c 20 -i 0.02 -W 5 10.88.0.1
  echo "awake and done"
} >/dev/ttyS0 2>&1 &
`;

describe("guest that suspends", { skip, timeout: patience(120_000) }, () => {
  test("NIC stops when the guest suspends to memory in a flood, and loses no packet after resume", async () => {
    const vm = await NicGuest.start({
      label: "sleep",
      guest: { smp: 2, append: "no_console_suspend", packedKernel: true },
    });
    try {
      await vm.load();
      const stop = vm.floodFromHost(2);
      await vm.guest.check(SLEEP);
      await until(20_000, "the guest to sleep", () =>
        vm.guest.events.some(({ event }) => event === "SUSPEND"),
      );
      const { queues } = await vm.nic.status();
      for (const { queue, fill } of queues) assert.equal(fill, null, `${queue} is in use`);
      const from = vm.guest.serialLog().length;
      await vm.guest.qmp("system_wakeup");
      await vm.guest.waitForSerial(/awake and done/, 30_000, from);
      stop();
      const said = vm.guest.serialLog().slice(from);
      assert.match(said, /20 packets transmitted, 20 received/, said);
      assert.match(said, /programs verified by the kernel/, said);
      assert.doesNotMatch(vm.guest.serialLog(), ALARM);
    } finally {
      await vm.close();
    }
  });
});
