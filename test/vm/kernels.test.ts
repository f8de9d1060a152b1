/** The guest module on every supported kernel, each built with its own suite's compiler. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { packageRoot } from "../../src/vm/guest-parts.ts";
import { ALARM } from "../support/vm/alarms.ts";
import { prepareGuest } from "../support/vm/harness.ts";
import { MODULE, NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, isRequired, withoutVm } from "../support/vm/requirements.ts";

interface Kernel {
  readonly suite: string;
  /** Start of `uname -r`. */
  readonly release: RegExp;
  /** True if a module can call its verifier. */
  readonly verifies: boolean;
}

const MAIN: Kernel = { suite: "trixie", release: /^6\.12\./, verifies: true };
const OTHERS: readonly Kernel[] = [
  { suite: "bullseye", release: /^5\.10\./, verifies: false },
  { suite: "bookworm", release: /^6\.1\./, verifies: true },
  { suite: "sid", release: /^[67]\.\d+/, verifies: true },
];
const CYCLES = 10;

const skip = await withoutVm();
/**
 * BPFHV_KERNELS=bullseye,sid selects suites. By default none: module.test.ts does the same and more
 * on the kernel of trixie.
 */
const asked = process.env.BPFHV_KERNELS?.split(",");
const kernels = [MAIN, ...OTHERS].filter((kernel) =>
  asked ? asked.includes(kernel.suite) : isFull,
);

/** Returns why a suite's kernel is unavailable here, or false. */
async function withoutSuite(suite: string): Promise<string | false> {
  if (skip) return skip;
  try {
    await prepareGuest(suite);
    return false;
  } catch (error) {
    if (isRequired("vm")) throw error;
    return `no guest with ${suite}'s kernel can be prepared: ${error instanceof Error ? error.message : error}`;
  }
}

for (const kernel of kernels) {
  const { suite, verifies } = kernel;
  const reason = await withoutSuite(suite);
  const unverified = verifies ? "" : "allow_unverified=1";

  describe(`the module on the kernel of ${suite}`, { skip: reason, timeout: 300_000 }, () => {
    let vm: NicGuest;

    async function counter(name: string): Promise<number> {
      const output = await vm.guest.check("ethtool -S eth0");
      return Number(new RegExp(`\\b${name}: (\\d+)`).exec(output)?.[1]);
    }

    async function bothWays(): Promise<void> {
      assert.equal(await vm.pings(5), 0);
      assert.ok((await vm.link.tcp("from guest", 1)) > 1);
      assert.ok((await vm.link.tcp("to guest", 1)) > 1);
      assert.equal((await counter("rx0_errors")) + (await counter("tx0_errors")), 0);
    }

    before(async () => {
      const { folder } = await prepareGuest(suite);
      // For the guest's init: busybox has it only from 1.31 on.
      const extraFiles = { "/usr/bin/base64": join(folder, "root/usr/bin/base64") };
      vm = await NicGuest.start({ label: suite, guest: { suite, extraFiles } });
    });

    after(async () => {
      assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
    });

    test("runs the intended kernel", async () => {
      assert.match((await vm.guest.check("uname -r")).trim(), kernel.release);
    });

    test(
      verifies
        ? "the kernel verifies the programs"
        : "refuses programs unless told to trust the host",
      async () => {
        if (!verifies) {
          await vm.guest.check(`insmod ${MODULE}`);
          assert.equal((await vm.guest.run("test -e /sys/class/net/eth0")).status, 1);
          assert.match(await vm.guest.check("dmesg"), /this kernel cannot verify programs/);
          await vm.guest.check("rmmod bpfhv");
        }
        await vm.load(unverified);
        assert.equal(await counter("verified"), verifies ? 1 : 0);
        const words = verifies ? /set 1, verified/ : /set 1, UNVERIFIED/;
        assert.match(await vm.guest.check("ethtool -i eth0"), words);
        await bothWays();
      },
    );

    test("goes down and up and reloads under a flood", async () => {
      const stop = vm.floodFromHost(2);
      const up = "ip addr add 10.88.0.2/24 dev eth0; ip link set eth0 up";
      const cycle = `ip link set eth0 down; rmmod bpfhv; insmod ${MODULE} ${unverified}; ${up}`;
      const bounce = "ip link set eth0 down; ip link set eth0 up";
      await vm.guest.check(`for i in $(seq ${CYCLES}); do ${cycle}; ${bounce}; done`, {
        timeoutMs: 60_000,
      });
      stop();
      assert.equal(await vm.pings(5), 0);
    });

    test("runs a version 1 set, and its kernel raises no alarm", async () => {
      await vm.guest.check("rmmod bpfhv");
      await vm.load("version1=1 allow_unverified=1");
      assert.equal(await counter("verified"), 0);
      await bothWays();
      await vm.guest.check("rmmod bpfhv");
      const log = await vm.guest.check("dmesg");
      assert.doesNotMatch(log, ALARM);
      // Newer kernels tell once what a module should not call any more.
      assert.doesNotMatch(log, /bpfhv.*deprecated/);
    });
  });
}

const long = isFull ? skip : "static checks of the module take script/test --full";

test("module passes W=1, sparse and checkpatch", { skip: long }, async () => {
  const check = join(packageRoot(), "script/lib/check-module");
  const run = promisify(execFile)(check, { timeout: 900_000 });
  const found = await run.catch((error) => assert.fail(`${error.stdout}\n${error.stderr}`));
  assert.match(found.stdout, /find nothing/);
});

test("module compiles when headers of an old kernel have interfaces of newer ones", {
  skip: long,
}, async () => {
  const check = join(packageRoot(), "script/lib/check-backports");
  const run = promisify(execFile)(check, { timeout: 900_000 });
  const found = await run.catch((error) => assert.fail(`${error.stdout}\n${error.stderr}`));
  assert.match(found.stdout, /compiles with headers of Linux 5\.10/);
});
