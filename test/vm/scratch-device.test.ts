/** The vfio-user library alone: the example device, used by a stock guest. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Guest, startGuest, until, within } from "../support/vm/harness.ts";
import { withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();
const EXAMPLE = fileURLToPath(new URL("../../examples/scratch-device.js", import.meta.url));

describe("scratch device in a guest", { skip, timeout: 100_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-scratch-"));
  const socket = join(folder, "scratch.sock");
  let server: ChildProcess;
  let guest: Guest;
  let base = 0;

  before(async () => {
    server = spawn(process.execPath, [EXAMPLE, "--socket", socket], { stdio: "ignore" });
    await until(10_000, "the example's socket", () => existsSync(socket));
    guest = await startGuest({ sockets: [socket] });
  });

  after(async () => {
    const { aborted } = (await guest?.close()) ?? {};
    assert.equal(aborted, false);
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.kill("SIGTERM");
    assert.equal(await within(5000, "the end of the example", ended), 0);
    rmSync(folder, { recursive: true, force: true });
  });

  /** A 32-bit access to BAR 0, as a driver makes it. */
  const devmem = async (offset: number, value?: number) => {
    const address = `0x${(base + offset).toString(16)}`;
    const write = value === undefined ? "" : ` ${value}`;
    return (await guest.check(`devmem ${address} 32${write}`)).trim();
  };

  const find = async () => {
    const path = await guest.check("dirname $(grep -l 0x5c4a /sys/bus/pci/devices/*/device)");
    const device = path.trim();
    await guest.check(`echo 1 > ${device}/enable`);
    base = Number((await guest.check(`head -n 1 ${device}/resource`)).split(" ")[0]);
    return device;
  };

  test("appears on the bus with its class and BAR", async () => {
    const device = await find();
    assert.equal((await guest.check(`cat ${device}/class`)).trim(), "0xff0000");
    assert.ok(base > 0);
    assert.equal(await devmem(0), "0x53435248");
  });

  test("keeps writes to its memory and ignores writes to its identity", async () => {
    await devmem(0x100, 0x12345678);
    await devmem(0x0, 7);
    assert.equal(await devmem(0x100), "0x12345678");
    assert.equal(await devmem(0x0), "0x53435248");
  });

  test("runs its timer", async () => {
    await devmem(0x4, 10);
    await guest.check("sleep 0.5");
    assert.ok(Number(await devmem(0x8)) > 5, "it fired");
    await devmem(0x4, 0);
    const fired = await devmem(0x8);
    await guest.check("sleep 0.2");
    assert.equal(await devmem(0x8), fired, "and stopped");
  });

  test("is in its initial state after a reboot", async () => {
    await guest.reboot();
    await find();
    assert.equal(await devmem(0x100), "0x00000000");
    assert.equal(await devmem(0x0), "0x53435248");
  });
});
