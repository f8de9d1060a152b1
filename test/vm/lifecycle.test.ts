/**
 * The life of a NIC in a real guest: load, reload, up and down, reboot, and the end of either side.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { changeSpec } from "../../src/control/client.ts";
import { controlPath } from "../../src/control/socket-path.ts";
import { composeInitrd } from "../../src/vm/guest-parts.ts";
import { ALARM } from "../support/vm/alarms.ts";
import {
  isDebugKernel,
  patience,
  prepareGuest,
  sleep,
  startGuest,
  until,
} from "../support/vm/harness.ts";
import { MODULE, modulePath, NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const long = isFull ? false : "takes script/test --full";
const RELOADS = isFull ? 100 : 5;
const LINK_CYCLES = isFull ? 100 : 5;

/** A write whose effect the driver does not wait for is overtaken within microseconds. */
const LATE_MS = isFull ? 50 : 10;

/** Memory that V8 may keep. A leak of one ring's buffers per reload would be more. */
const MAX_GROWTH_KIB = 24 * 1024;

/** Returns the server's descriptors, after the connection of the status request was closed. */
async function descriptors(vm: NicGuest): Promise<number> {
  await sleep(300);
  return vm.nic.openDescriptors;
}

const contexts = (vm: NicGuest) => vm.nic.status().then(({ step }) => step);

describe("guest and its NIC", { skip, timeout: patience(isFull ? 900_000 : 200_000) }, () => {
  let vm: NicGuest;

  before(async () => {
    // kexec cannot start the debug kernel's image: it starts Debian's own kernel instead.
    const suite = isDebugKernel ? "trixie" : undefined;
    const next = await prepareGuest(suite);
    const module = await modulePath(suite);
    vm = await NicGuest.start({
      label: "life",
      guest: {
        memoryMiB: 768,
        extraFiles: {
          // For kexec: a kernel and its tools, with the module.
          "/extra/vmlinuz": next.kernel,
          "/extra/initrd": composeInitrd(next, [{ path: MODULE, content: await readFile(module) }]),
        },
      },
    });
  });

  after(async () => {
    await vm?.close();
  });

  test("guest's kernel verifies the programs, and packets flow both ways", async () => {
    await vm.load();
    assert.equal(await vm.pings(), 0);
    assert.match(await vm.guest.check("dmesg"), /bpfhv .* programs verified by the kernel/);
    const status = await vm.nic.status();
    assert.equal(status.step, "enabled");
    assert.equal(status.link, "up");
    assert.equal(status.programs, "verified");
    assert.ok(status.queues[0].counters.packets >= 20);
    assert.ok(status.queues[1].counters.packets >= 20);
    assert.ok((await vm.link.tcp("from guest", 1)) > 1);
    assert.ok((await vm.link.tcp("to guest", 1)) > 1);
  });

  test(`module reloads under traffic ${RELOADS} times without a leak`, async () => {
    const stop = vm.floodFromHost();
    const before = await descriptors(vm);
    const mapped = vm.nic.guestBytesMapped;
    assert.ok(mapped > 0, "the guest's memory is recognised");
    let settled = 0;
    for (let n = 0; n < RELOADS; n++) {
      await vm.guest.check("rmmod bpfhv");
      await vm.load();
      if (n === 3) settled = vm.nic.anonymousKiB;
    }
    stop();
    assert.equal(await vm.pings(), 0);
    assert.equal(await descriptors(vm), before);
    assert.equal(vm.nic.guestBytesMapped, mapped);
    const grown = vm.nic.anonymousKiB - settled;
    assert.ok(grown < MAX_GROWTH_KIB, `grew by ${grown} KiB in six reloads`);
    assert.doesNotMatch(await vm.guest.check("dmesg"), ALARM);
  });

  test(`link goes down and up under traffic ${LINK_CYCLES} times`, async () => {
    const stop = vm.floodFromHost();
    for (let n = 0; n < LINK_CYCLES; n++)
      await vm.guest.check("ip link set eth0 down; ip link set eth0 up");
    stop();
    assert.equal(await vm.pings(), 0);
    assert.doesNotMatch(await vm.guest.check("dmesg"), ALARM);
  });

  test("machine reset under traffic leaves no context registered", async () => {
    const stop = vm.floodFromHost();
    await vm.guest.reset();
    assert.equal(await contexts(vm), "guest attached");
    assert.equal((await vm.nic.status()).programs, "-");
    stop();
    await vm.load();
    assert.equal(await vm.pings(), 0);
  });

  test("guest reboot under traffic leaves no context registered", async () => {
    const stop = vm.floodFromHost();
    await vm.guest.reboot();
    assert.equal(await contexts(vm), "guest attached");
    stop();
    await vm.load();
    assert.equal(await vm.pings(), 0);
  });

  test("NIC is disabled before kexec starts another kernel under traffic", {
    skip: long,
  }, async () => {
    const stop = vm.floodFromHost();
    const boots = vm.guest.boots;
    await vm.guest.check("kexec -l /extra/vmlinuz --initrd=/extra/initrd --reuse-cmdline");
    await vm.guest.check("(sleep 0.3; kexec -e) >/dev/null 2>&1 &");
    await vm.guest.waitForBoot(boots + 1);
    stop();
    assert.equal((await vm.nic.status()).programs, "-");
    await vm.load();
    assert.equal(await vm.pings(), 0);
  });

  test("NIC is free for the next QEMU, without a leak, when QEMU was killed under traffic", async () => {
    const stop = vm.floodFromHost();
    await vm.guest.kill();
    await until(5000, "the NIC's reset", async () => (await contexts(vm)) === "no guest");
    stop();
    const before = await descriptors(vm);
    const next = await startGuest({
      sockets: [vm.nic.socket],
      extraFiles: { [MODULE]: await modulePath() },
    });
    await next.check(
      `insmod ${MODULE} && ip addr add 10.88.0.2/24 dev eth0 && ip link set eth0 up`,
    );
    await next.check("ping -q -c 5 -i 0.2 -W 2 10.88.0.1");
    const { aborted } = await next.close();
    assert.equal(aborted, false);
    await until(5000, "the NIC's reset", async () => (await contexts(vm)) === "no guest");
    assert.equal(await descriptors(vm), before);
  });
});

describe("server that is late, and disappears", { skip, timeout: patience(150_000) }, () => {
  let vm: NicGuest;

  before(async () => {
    vm = await NicGuest.start({ label: "away", serve: ["--answer-delay", `${LATE_MS}`] });
  });

  after(async () => {
    await vm?.guest.close();
    await vm?.nic.stop();
    vm?.netns.close();
  });

  test("driver works when the server replies late, because reads fence writes", async () => {
    await vm.load();
    assert.equal(await vm.pings(5), 0);
    await vm.guest.check("ip link set eth0 down && ip link set eth0 up");
    assert.equal(await vm.pings(5), 0);
    await vm.guest.check("rmmod bpfhv");
    await vm.load();
    assert.equal(await vm.pings(5), 0);
  });

  test("guest's link goes down and the server logs it, without spinning, when its TAP is removed", async () => {
    assert.equal(await vm.pings(3), 0);
    const log = vm.guest.check("ping -q -c 20 -i 0.05 -W 1 10.88.0.1 || true");
    vm.netns.removeTap("tap0");
    await log;
    await until(5000, "carrier down", async () => {
      const { output } = await vm.guest.run("cat /sys/class/net/eth0/carrier");
      return output.trim() === "0";
    });
    assert.equal((await vm.nic.status()).link, "down");
    await until(3000, "a line in the log", () => /tap:tap0 is gone/.test(vm.nic.log));
    const ticks = vm.nic.cpuTicks;
    await sleep(2000);
    assert.ok(vm.nic.cpuTicks - ticks < 40, `${vm.nic.cpuTicks - ticks} ticks of 10 ms in 2 s`);
  });

  test("link comes back when a server whose TAP was removed gets another port", async () => {
    vm.netns.addTap({ name: "tap1", address: "10.88.0.1/24" });
    const port = `tap:tap1,netns=${vm.netns.name}`;
    await changeSpec(vm.nic.socket, { port });
    assert.equal(await vm.pings(3), 0);
    assert.equal((await vm.nic.status()).link, "up");
  });

  test("QEMU and guest survive, and nothing is left, when the server stops", async () => {
    const stop = vm.floodFromHost();
    await vm.guest.check("ping -q -i 0.01 10.88.0.1 >/dev/null 2>&1 &");
    await sleep(500);
    const { socket } = vm.nic;
    const started = performance.now();
    const { code } = await vm.nic.stop("SIGINT");
    assert.ok(performance.now() - started < patience(5000));
    assert.equal(code, 0);
    assert.equal(existsSync(socket) || existsSync(controlPath(socket)), false);
    stop();
    await vm.guest.check("ip link set eth0 down; true");
    assert.match(await vm.guest.check("dmesg"), /the device is gone/);
    await vm.guest.check("rmmod bpfhv");
    await vm.guest.check("echo alive");
    const { aborted } = await vm.guest.close();
    assert.equal(aborted, false);
  });
});
