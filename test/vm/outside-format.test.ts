/** A NIC in one file, from outside the tree of sources, in a real guest. */
import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { DROP_COUNTERS } from "../../src/memory/counters.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";
import { patience } from "../support/vm/time.ts";

const skip = await withoutVm();
const EXAMPLE = fileURLToPath(new URL("../../../examples/mini-ring.ts", import.meta.url));

describe("NIC in one file in a guest", { skip, timeout: patience(120_000) }, () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-outside-"));
  const module = join(folder, "my-nic.ts");
  let vm: NicGuest;

  before(async () => {
    copyFileSync(EXAMPLE, module);
    // The smallest ring: indices pass its end all the time.
    vm = await NicGuest.start({ label: "out", serve: ["--device", module, "--bufs", "16"] });
    await vm.load();
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
    rmSync(folder, { recursive: true, force: true });
  });

  async function traffic(): Promise<void> {
    assert.equal(await vm.pings(20), 0);
    assert.ok((await vm.link.tcp("from guest", 1)) > 1);
    assert.ok((await vm.link.tcp("to guest", 1)) > 1);
    for (const { queue, counters, broken } of (await vm.nic.status()).queues) {
      assert.equal(broken, false);
      for (const name of DROP_COUNTERS) assert.equal(counters[name], 0, `${queue} ${name}`);
      assert.ok(counters.packets > 512, `${queue}: ${counters.packets} packets`);
    }
  }

  test("guest's kernel accepts its programs", async () => {
    const { device, programs } = await vm.nic.status();
    assert.deepEqual([device, programs], ["mini_ring", "verified"]);
  });

  test("pings and TCP pass both ways and nothing is dropped", traffic);

  test("traffic passes when the guest went down and up in a flood", async () => {
    const stop = vm.floodFromHost(2);
    for (let cycle = 0; cycle < 5; cycle++) {
      await vm.guest.check("ip link set eth0 down && ip link set eth0 up");
    }
    stop();
    await traffic();
  });
});
