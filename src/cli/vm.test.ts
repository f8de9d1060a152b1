import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { qcow2Image } from "../../test/support/cli.ts";
import { CommandError } from "../errors.ts";
import { isOlder, parseQemuVersion, qemuProblem, systemQemu } from "../vm/find-qemu.ts";
import { checkUsage, type VmFlags, vmCommand } from "./vm.ts";

const flags: VmFlags = { socket: ["/run/nic.sock"], memory: "512M", smp: "1", accel: "auto" };

test("wrong use is status 2 and one line that says what to do", () => {
  const refused: [Partial<VmFlags>, string[], RegExp][] = [
    [{ socket: [] }, [], /--socket/],
    [{ socket: [`/${"x".repeat(107)}`] }, [], /at most 103 bytes/],
    [{ disk: "/d", kernel: "/k" }, [], /exclude/],
    [{ append: "quiet" }, [], /need --kernel/],
    [{ diskFormat: "raw" }, [], /need --disk/],
    [{ snapshot: true }, [], /need --disk/],
    [{ memory: "lots" }, [], /512M/],
    [{ smp: "0" }, [], /1 to 255/],
    [{ smp: "256" }, [], /1 to 255/],
    [{ accel: "xen" }, [], /auto, kvm or tcg/],
    [{}, ["-m", "1G"], /--memory/],
    [{}, ["-device", "intel-iommu"], /caching-mode=on/],
  ];
  for (const [change, extra, remedy] of refused) {
    assert.throws(
      () => checkUsage({ ...flags, ...change }, extra),
      (error: unknown) => {
        assert.ok(error instanceof CommandError);
        assert.equal(error.status, 2);
        assert.match(error.message, remedy);
        return !error.message.includes("\n");
      },
    );
  }
  assert.doesNotThrow(() => checkUsage(flags, ["-trace", "vfio_user*"]));
});

test("versions are compared as numbers", () => {
  assert.deepEqual(parseQemuVersion("QEMU emulator version 10.1.2 (Debian)\n"), [10, 1]);
  assert.equal(parseQemuVersion("something else"), undefined);
  assert.equal(isOlder([9, 2], [10, 1]), true);
  assert.equal(isOlder([10, 0], [10, 1]), true);
  assert.equal(isOlder([10, 1], [10, 1]), false);
  assert.equal(isOlder([11, 0], [10, 1]), false);
});

/** As a server answers on its control socket. */
function httpAnswer(body: object): string {
  return `HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n${JSON.stringify(body)}`;
}

describe("finding QEMU", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "bpfhv-qemu-"));
  });
  after(() => rmSync(folder, { recursive: true }));

  function fakeQemu(version: string, devices: string, formats = "raw vvfat"): string {
    const path = join(folder, `qemu-${version}`);
    const script = `#!/bin/sh
case $1 in
--version) echo "QEMU emulator version ${version}";;
-drive) echo "Supported formats: file ${formats}";;
*) echo '${devices}';;
esac\n`;
    writeFileSync(path, script);
    chmodSync(path, 0o755);
    return path;
  }

  test("one that is too old is refused, and told which version is needed", () => {
    const old = fakeQemu("7.2.19", 'name "vfio-pci"');
    assert.match(qemuProblem(old) ?? "", /QEMU 7\.2.*needs 10\.1/);
    assert.throws(() => systemQemu(old), { name: "CommandError", status: 1 });
  });

  test("one without the device is refused", () => {
    const bare = fakeQemu("11.0.0", 'name "vfio-pci"');
    assert.match(qemuProblem(bare) ?? "", /without vfio-user-pci/);
  });

  test("one with it is taken", () => {
    const good = fakeQemu("10.1.0", 'name "vfio-user-pci", bus PCI');
    assert.equal(systemQemu(good), good);
  });

  test("one that is not there is refused by name", () => {
    assert.match(qemuProblem(join(folder, "nothing")) ?? "", /cannot run .*nothing \(ENOENT\)/);
  });

  async function printed(words: string[]): Promise<string> {
    const lines: string[] = [];
    const write = process.stdout.write;
    process.stdout.write = (text: string | Uint8Array) => lines.push(String(text)) > 0;
    try {
      await vmCommand().parseAsync(words, { from: "user" });
    } finally {
      process.stdout.write = write;
    }
    return lines.filter((line) => line.includes("vfio-user-pci")).join("");
  }

  test("--print shows the command line, with several sockets, and needs none of them", async () => {
    const qemu = fakeQemu("10.1.0", 'name "vfio-user-pci", bus PCI');
    const kernel = join(folder, "kernel");
    writeFileSync(kernel, "");
    const sockets = ["--socket", "/run/a b.sock", "--socket", "/run/c.sock"];
    const more = ["--kernel", kernel, "--accel", "tcg", "--original-driver", "--print"];
    const line = await printed(["--qemu", qemu, ...sockets, ...more, "--", "-trace", "x*"]);
    assert.match(line, /"path":"\/run\/a b\.sock"},"x-no-posted-writes":true}'/);
    assert.match(line, /"id":"nic1".*"path":"\/run\/c\.sock"/);
    const plugged = await printed(["--qemu", qemu, ...sockets, ...more, "--hotplug"]);
    assert.match(plugged, /"id":"port1","chassis":2}' -device '{[^}]*"id":"nic1","bus":"port1"/);
    assert.match(line, /share=on .*-serial mon:stdio -trace 'x\*'\n$/);
  });

  test("vm --print warns when its QEMU has no vvfat to refuse migration with", async (t) => {
    const stderr = t.mock.method(process.stderr, "write", () => true);
    const device = 'name "vfio-user-pci", bus PCI';
    const kernel = join(folder, "kernel");
    writeFileSync(kernel, "");
    const words = ["--socket", "/s", "--accel", "tcg", "--kernel", kernel, "--print", "--qemu"];
    const blocked = await printed([...words, fakeQemu("10.1.0", device)]);
    assert.match(blocked, /no-live-migration-with-bpfhv/);
    assert.equal(stderr.mock.callCount(), 0);
    const without = await printed([...words, fakeQemu("10.1.1", device, "raw")]);
    assert.doesNotMatch(without, /no-live-migration/);
    assert.match(String(stderr.mock.calls[0]?.arguments[0]), /do not migrate this guest\n$/);
  });

  test("a disk image is raw unless --disk-format says otherwise", async () => {
    const qemu = fakeQemu("10.1.0", 'name "vfio-user-pci", bus PCI');
    const words = ["--qemu", qemu, "--socket", "/s", "--accel", "tcg", "--print", "--disk"];
    const [raw, qcow2] = [join(folder, "raw"), join(folder, "qcow2")];
    writeFileSync(raw, Buffer.alloc(512));
    writeFileSync(qcow2, qcow2Image({}));
    assert.match(await printed([...words, raw]), /"driver":"raw","file":{"driver":"file"/);
    const line = await printed([...words, qcow2, "--disk-format", "qcow2"]);
    assert.match(line, /"driver":"qcow2",.*"backing":null/);
    for (const format of [[], ["--disk-format", "raw"]]) {
      const refused = vmCommand().parseAsync([...words, qcow2, ...format], { from: "user" });
      await assert.rejects(refused, { status: 1, message: /use --disk-format qcow2/ });
    }
    writeFileSync(qcow2, qcow2Image({ backing: "/etc/shadow" }));
    const backed = [...words, qcow2, "--disk-format", "qcow2"];
    await assert.rejects(vmCommand().parseAsync(backed, { from: "user" }), {
      status: 1,
      message: /backing file/,
    });
  });

  test("vm refuses a NIC before QEMU starts when its status shows a guest", async () => {
    const qemu = fakeQemu("10.1.0", 'name "vfio-user-pci", bus PCI');
    const kernel = join(folder, "kernel");
    writeFileSync(kernel, "");
    const path = join(folder, "busy.sock");
    let step = "enabled";
    const nic = createServer().listen(path);
    const control = createServer((client) => {
      client.on("data", () => client.end(httpAnswer({ status: { step, pid: 42 } })));
    }).listen(`${path}.ctl`);
    const words = ["--qemu", qemu, "--accel", "tcg", "--socket", path, "--kernel", kernel];
    const start = () => vmCommand().parseAsync(words, { from: "user" });
    try {
      await assert.rejects(start(), { status: 1, message: /a guest has this NIC .*process 42/ });
      step = "no guest";
      const hotplug = vmCommand().parseAsync([...words, "--hotplug"], { from: "user" });
      await assert.rejects(hotplug, { status: 1, message: /served with --interrupts msi/ });
      // The stand-in for QEMU prints its help and ends well.
      await start();
    } finally {
      nic.close();
      control.close();
    }
  });

  test("guest RAM that cannot be sealed is refused when the NIC leaves it unused", async (t) => {
    const stderr = t.mock.method(process.stderr, "write", () => true);
    const qemu = fakeQemu("10.1.0", 'name "vfio-user-pci", bus PCI');
    const kernel = join(folder, "kernel");
    writeFileSync(kernel, "");
    const path = join(folder, "sealed.sock");
    const answer: Record<string, unknown> = { step: "no guest", allowUnsealed: false };
    const nic = createServer().listen(path);
    const control = createServer((client) => {
      client.on("data", () => client.end(httpAnswer({ status: answer })));
    }).listen(`${path}.ctl`);
    const file = ["-object", "memory-backend-shm,id=a,size=512M", "-machine", "memory-backend=a"];
    const words = ["--qemu", qemu, "--accel", "tcg", "--socket", path, "--kernel", kernel];
    const start = (...more: string[]) =>
      vmCommand().parseAsync([...words, ...more], { from: "user" });
    try {
      await assert.rejects(start("--", ...file), {
        status: 1,
        message: /sealed\.sock: guest RAM "a" .*memory-backend-memfd, or .*--allow-unsealed/,
      });
      await start();
      answer.allowUnsealed = true;
      await start("--", ...file);
      assert.equal(stderr.mock.callCount(), 0);
      // A server of another version does not say: the user is told, the guest starts.
      delete answer.allowUnsealed;
      await start("--", ...file);
      assert.match(
        String(stderr.mock.calls[0]?.arguments[0]),
        /without --allow-unsealed leaves it/,
      );
      answer.allowUnsealed = true;
      await printed([...words, "--print", "--", ...file]);
      assert.equal(stderr.mock.callCount(), 2, "--print asks no server");
    } finally {
      nic.close();
      control.close();
    }
  });

  test("--print prepares nothing when the test guest is not there", async () => {
    const qemu = fakeQemu("10.1.0", 'name "vfio-user-pci", bus PCI');
    const before = process.env.BPFHV_CACHE;
    process.env.BPFHV_CACHE = join(folder, "cache");
    try {
      const words = ["--qemu", qemu, "--accel", "tcg", "--socket", "/s", "--print"];
      await assert.rejects(vmCommand().parseAsync(words, { from: "user" }), {
        status: 1,
        message: /not prepared: run bpfhv vm once without --print/,
      });
      assert.equal(existsSync(join(folder, "cache")), false);
    } finally {
      if (before === undefined) delete process.env.BPFHV_CACHE;
      else process.env.BPFHV_CACHE = before;
    }
  });

  test("a missing kernel and a missing server are failures that name the remedy", async () => {
    const qemu = fakeQemu("10.1.0", 'name "vfio-user-pci", bus PCI');
    const words = ["--qemu", qemu, "--accel", "tcg", "--socket", join(folder, "none.sock")];
    const absent = [...words, "--print", "--kernel", "/no/kernel"];
    const missing = vmCommand().parseAsync(absent, { from: "user" });
    await assert.rejects(missing, { status: 1, message: /cannot read \/no\/kernel/ });
    writeFileSync(join(folder, "kernel"), "");
    const alone = [...words, "--kernel", join(folder, "kernel")];
    const unserved = vmCommand().parseAsync(alone, { from: "user" });
    await assert.rejects(unserved, { status: 1, message: /start `bpfhv serve/ });
  });
});
