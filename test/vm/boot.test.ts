/** The test harness itself, with a plain virtio NIC. */
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, before, describe, test } from "node:test";
import {
  type Guest,
  isAlive,
  Netns,
  patience,
  prepareGuest,
  startGuest,
} from "../support/vm/harness.ts";
import { QemuProcess } from "../support/vm/qemu-process.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";
import { Link } from "../support/vm/traffic.ts";

const skip = await withoutVm();

/** Returns this process's folders: other tests may run. */
function ourFolders(): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith(`bpfhv-vm-${process.pid}-`));
}

describe("stock guest", { skip, timeout: patience(120_000) }, () => {
  let netns: Netns;
  let guest: Guest;

  before(async () => {
    netns = Netns.make("boot");
    netns.addTap({ name: "tap0", address: "10.99.0.1/24" });
    const started = performance.now();
    guest = await startGuest({
      virtioNics: [{ tap: "tap0", netns: netns.name, mac: "52:54:00:00:00:01" }],
      extraFiles: { "/extra/greeting": Buffer.from("good morning\n") },
    });
    console.log(`booted in ${Math.round(performance.now() - started)} ms`);
  });

  after(async () => {
    await guest?.close();
    netns?.close();
  });

  test("runs the prepared kernel", async () => {
    const { release } = await prepareGuest();
    assert.equal((await guest.check("uname -r")).trim(), release);
  });

  test("returns a script's status and output, and has the added files", async () => {
    const script = 'cat /extra/greeting; printf "no newline \\303\\251" >&2; exit 3';
    const result = await guest.run(script);
    assert.deepEqual(result, { status: 3, output: "good morning\nno newline é" });
    const { output } = await guest.run("seq 1 20000");
    assert.equal(output.split("\n").length, 20001);
  });

  test("kills a script with its children at its timeout, and runs the next one", async () => {
    const { status } = await guest.run("sleep 1000 & sleep 1000", { timeoutMs: 1000 });
    assert.equal(status, 137);
    assert.equal((await guest.run("pidof sleep")).status, 1);
  });

  test("exchanges packets with the host through its NIC", async () => {
    await guest.check("ip addr add 10.99.0.2/24 dev eth0 && ip link set eth0 up");
    await guest.check("ping -V | grep iputils");
    const parts = await prepareGuest();
    const link = new Link({ guest, netns, parts, host: "10.99.0.1", peer: "10.99.0.2" });
    for (const { sent, received } of [await link.pingFromGuest(3), link.pingFromHost(3)]) {
      assert.equal(received, sent);
    }
  });

  test("QMP returns replies, and rejects an unknown command", async () => {
    assert.deepEqual(await guest.qmp("query-status"), { running: true, status: "running" });
    await assert.rejects(guest.qmp("no-such-command"), /no-such-command/);
  });

  const long = isFull ? false : "takes script/test --full: lifecycle reboots, too";
  test("reboots itself into the same kernel", { skip: long }, async () => {
    await guest.reboot();
    await guest.check("test -e /sys/class/net/eth0");
  });

  test("rejects a command in flight at once when the machine is reset, and boots again", async () => {
    const { boots } = guest;
    const command = guest.run("sleep 60", { timeoutMs: 60_000 });
    const [result] = await Promise.allSettled([command, guest.reset()]);
    assert.equal(result.status, "rejected");
    assert.match(String(result.reason), /rebooted/);
    assert.equal(guest.boots, boots + 1);
    await guest.check("test -e /sys/class/net/eth0");
  });

  test("powers off and leaves nothing behind", async () => {
    const { code, aborted } = await guest.powerOff();
    assert.deepEqual({ code, aborted }, { code: 0, aborted: false });
    await assert.rejects(guest.run("true"), /gone|ended|closed/);
    await guest.close();
    netns.close();
    assert.deepEqual(ourFolders(), []);
    assert.equal(isAlive(guest.pid), false);
    assert.equal(existsSync(`/run/netns/${netns.name}`), false);
  });
});

test("QEMU's exit reports a signal when the test did not kill it", { skip }, async () => {
  const { qemu } = await prepareGuest();
  const machine = new QemuProcess([qemu, "-nodefaults", "-display", "none", "-S"], []);
  process.kill(machine.pid, "SIGABRT");
  const { signal, aborted, killed } = await machine.exit;
  assert.deepEqual(
    { signal, aborted, killed },
    { signal: "SIGABRT", aborted: true, killed: false },
  );
});

test("QEMU's own message is reported when it refuses its arguments", { skip }, async () => {
  const options = { devices: [{ driver: "no-such-device" }] };
  await assert.rejects(startGuest(options), /no-such-device/);
});
