import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import {
  type Machine,
  MIGRATION_BLOCKER,
  parseMemory,
  qemuCommand,
  rootPort,
  shellQuote,
  vfioUserDevice,
} from "./qemu-command.ts";

const machine: Machine = {
  qemu: "qemu-system-x86_64",
  accelerator: "tcg",
  memoryMiB: 512,
  cpus: 1,
  boot: { kernel: "/k", initrd: "/i", append: "console=ttyS0" },
  devices: [vfioUserDevice("/run/nic.sock", { id: "nic0" })],
};

function argumentOf(words: readonly string[], option: string): string | undefined {
  const at = words.indexOf(option);
  return at < 0 ? undefined : words[at + 1];
}

test("guest RAM is a shared memfd of the requested size, which the machine uses", () => {
  const words = qemuCommand(machine);
  assert.equal(argumentOf(words, "-object"), "memory-backend-memfd,id=ram,size=512M,share=on");
  assert.equal(argumentOf(words, "-machine"), "q35,memory-backend=ram");
  assert.equal(argumentOf(words, "-m"), "512M");
});

test("vfio-user socket is passed to QEMU in JSON form", () => {
  assert.deepEqual(JSON.parse(argumentOf(qemuCommand(machine), "-device")!), {
    driver: "vfio-user-pci",
    id: "nic0",
    socket: { type: "unix", path: "/run/nic.sock" },
  });
});

test("NIC is plugged into a root port when one is given", () => {
  assert.deepEqual(rootPort("port0", 1), { driver: "pcie-root-port", id: "port0", chassis: 1 });
  assert.equal(vfioUserDevice("/s", { bus: "port0" }).bus, "port0");
  assert.equal("bus" in vfioUserDevice("/s"), false);
});

test("NIC uses answered writes when the driver is an original one", () => {
  assert.equal(vfioUserDevice("/s", { originalDriver: true })["x-no-posted-writes"], true);
  assert.equal("x-no-posted-writes" in vfioUserDevice("/s"), false);
});

test("disk layers are all named, so that QEMU probes no format", () => {
  const disk = { path: "/a,b.img", format: "raw", isDevice: false } as const;
  const words = qemuCommand({ ...machine, devices: [], boot: { disk } });
  assert.deepEqual(JSON.parse(argumentOf(words, "-blockdev")!), {
    "node-name": "disk",
    driver: "raw",
    file: { driver: "file", filename: "/a,b.img" },
  });
  assert.equal(words.includes("-kernel") || words.includes("-drive"), false);
  const device = { path: "/dev/vg/lv", format: "qcow2", isDevice: true } as const;
  const qcow2 = qemuCommand({ ...machine, devices: [], boot: { disk: device } });
  assert.deepEqual(JSON.parse(argumentOf(qcow2, "-blockdev")!), {
    "node-name": "disk",
    driver: "qcow2",
    file: { driver: "host_device", filename: "/dev/vg/lv" },
    backing: null,
  });
});

test("snapshot names the layers when the path contains a comma", () => {
  const disk = { path: "/a,b.img", format: "qcow2", isDevice: false } as const;
  const drive = argumentOf(qemuCommand({ ...machine, boot: { disk, snapshot: true } }), "-drive")!;
  assert.match(drive, /^if=none,id=disk,snapshot=on,file=json:/);
  const layers = drive.slice(drive.indexOf("json:") + 5).replaceAll(",,", ",");
  assert.deepEqual(JSON.parse(layers), {
    driver: "qcow2",
    file: { driver: "file", filename: "/a,b.img" },
    backing: null,
  });
});

test("live migration is blocked when a vfio-user NIC is there, and only then", () => {
  const blocker = JSON.parse(argumentOf(qemuCommand(machine), "-blockdev")!);
  assert.equal(blocker["node-name"], "no-live-migration-with-bpfhv");
  assert.equal(qemuCommand({ ...machine, devices: [] }).includes("-blockdev"), false);
  assert.equal(qemuCommand({ ...machine, withoutBlocker: true }).includes("-blockdev"), false);
});

test("documents show the option that blocks live migration when they show a NIC's", () => {
  const { rw, "read-only": readOnly, ...words } = MIGRATION_BLOCKER;
  const fields = Object.entries(words).map(([name, value]) => `${name}=${value}`);
  const option = `-blockdev ${fields.join(",")},rw=${rw ? "on" : "off"}`;
  const line = `${option},read-only=${readOnly ? "on" : "off"}`;
  for (const path of ["README.md", "docs/qemu.md", "src/vfio-user/README.md"]) {
    const text = readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");
    assert.ok(text.includes(line), `${path} lacks ${line}`);
  }
});

test("command omits its RAM when NUMA nodes have backends", () => {
  const nodes = [
    "-object",
    "memory-backend-memfd,id=a,size=512M,share=on",
    "-numa",
    "node,memdev=a",
  ];
  const words = qemuCommand({ ...machine, extra: nodes });
  assert.equal(argumentOf(words, "-machine"), "q35");
  assert.equal(words.filter((word) => word.startsWith("memory-backend-")).length, 1);
  const plain = qemuCommand({ ...machine, extra: ["-numa", "node,cpus=0"] });
  assert.equal(argumentOf(plain, "-machine"), "q35,memory-backend=ram");
});

test("extra arguments are appended unchanged", () => {
  const words = qemuCommand({ ...machine, extra: ["-trace", "vfio_user*"] });
  assert.deepEqual(words.slice(-2), ["-trace", "vfio_user*"]);
});

test("quoted command line is parsed by the shell into the same words", () => {
  const word = fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0"));
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 5 }), (words) => {
      const script = `printf '%s\\0' ${shellQuote(words)}`;
      const read = execFileSync("/bin/sh", ["-c", script], { encoding: "utf8" });
      assert.deepEqual(read.split("\0").slice(0, -1), words);
    }),
    { numRuns: 50 },
  );
});

test("memory is given in MiB, M or G, from 32 MiB to 1 TiB", () => {
  const cases = { "512": 512, "512M": 512, "2G": 2048, "1GiB": 1024, "8": undefined, x: undefined };
  for (const [text, expected] of Object.entries(cases)) assert.equal(parseMemory(text), expected);
  assert.equal(parseMemory("9999999G"), undefined);
});
