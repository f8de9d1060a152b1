import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { qcow2Image } from "../../test/support/cli.ts";
import { checkDisk, claimedFormat, headerProblem } from "./disk-image.ts";

const at = (offset: number, text: string): Buffer =>
  Buffer.concat([Buffer.alloc(offset), Buffer.from(text, "latin1"), Buffer.alloc(600)]);

test("raw image is refused when it begins as another format that QEMU knows", () => {
  const claims: [string, Buffer][] = [
    ["qcow2", at(0, "QFI\xfb")],
    ["vmdk", at(0, "KDMV")],
    ["vmdk", at(0, "COWD")],
    ["vmdk", at(0, "# Disk DescriptorFile\nversion=1\n")],
    ["vmdk", at(0, "# any\n\n  \nversion=3\r\n")],
    ["vdi", at(0x40, "\x7f\x10\xda\xbe")],
    ["vhdx", at(0, "vhdxfile")],
    ["vpc", at(0, "conectix")],
    ["qed", at(0, "QED\0")],
    ["luks", at(0, "LUKS\xba\xbe")],
    ["parallels", at(0, "WithoutFreeSpace")],
    ["parallels", at(0, "WithouFreSpacExt")],
    ["bochs", at(0, "Bochs Virtual HD Image")],
    ["cloop", at(0, "#!/bin/sh\n#V2.0 Format\n")],
  ];
  for (const [format, head] of claims) {
    assert.equal(claimedFormat(head), format);
    const problem = headerProblem(head, "raw") ?? "";
    assert.match(problem, new RegExp(`begins as a ${format} image`));
    assert.match(problem, format === "qcow2" ? /use --disk-format qcow2/ : /qemu-img convert/);
    assert.doesNotMatch(problem, /\n/);
  }
});

test("raw image is accepted when it begins with a boot sector or zeros, or is empty", () => {
  const sector = Buffer.alloc(512);
  sector.writeUInt16LE(0xaa55, 510);
  for (const head of [sector, Buffer.alloc(4096), Buffer.alloc(0), at(1, "QFI\xfb")]) {
    assert.equal(headerProblem(head, "raw"), undefined);
  }
});

test("qcow2 image is accepted when it refers to no other file", () => {
  assert.equal(headerProblem(qcow2Image({}), "qcow2"), undefined);
  assert.equal(headerProblem(qcow2Image({ version: 2 }), "qcow2"), undefined);
  const names = { type: 0x6803f857, data: Buffer.alloc(48) };
  assert.equal(headerProblem(qcow2Image({ extensions: [names] }), "qcow2"), undefined);
});

test("qcow2 image is refused when it names another file of the host", () => {
  const dataFile = { type: 0x44415441, data: Buffer.from("/etc/passwd") };
  const names = { type: 0x6803f857, data: Buffer.alloc(5) };
  const refused: [Parameters<typeof qcow2Image>[0], RegExp][] = [
    [{ backing: "/etc/passwd" }, /backing file/],
    [{ version: 2, backing: "/etc/passwd" }, /backing file/],
    [{ incompatible: 4, extensions: [dataFile] }, /data in another file/],
    [{ incompatible: 4 }, /data in another file/],
    [{ extensions: [dataFile] }, /data in another file/],
    [{ version: 2, extensions: [names, dataFile] }, /data in another file/],
  ];
  for (const [options, reason] of refused) {
    assert.match(headerProblem(qcow2Image(options), "qcow2") ?? "", reason);
  }
});

test("qcow2 image is refused when its header is damaged or unknown", () => {
  const damaged = (change: (image: Buffer) => void): Buffer => {
    const image = Buffer.from(qcow2Image({}));
    change(image);
    return image;
  };
  const cases: [Buffer, RegExp][] = [
    [damaged((i) => i.writeUInt32BE(4, 4)), /version 4/],
    [damaged((i) => i.writeUInt32BE(1, 4)), /version 1/],
    [damaged((i) => i.writeUInt32BE(40, 20)), /damaged/],
    [damaged((i) => i.writeUInt32BE(0, 20)), /damaged/],
    [damaged((i) => i.writeUInt32BE(90, 100)), /damaged/],
    [damaged((i) => i.writeUInt32BE(0xfffffff8, 100)), /damaged/],
    [damaged((i) => i.writeUInt32BE(0xffffffff, 108)).fill(1, 104, 108), /damaged/],
    [Buffer.from(qcow2Image({})).subarray(0, 60), /damaged/],
    [Buffer.from(qcow2Image({})).subarray(0, 90), /damaged/],
    [Buffer.alloc(4096), /no qcow2 header/],
  ];
  for (const [image, reason] of cases) assert.match(headerProblem(image, "qcow2") ?? "", reason);
});

test("disk is refused in one line when it is neither a file nor a block device", () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-disk-"));
  try {
    const fifo = join(folder, "fifo");
    execFileSync("mkfifo", [fifo]);
    for (const path of [folder, fifo, "/dev/null"]) {
      assert.throws(() => checkDisk(path, "raw"), { status: 1, message: /neither a file nor/ });
    }
    assert.throws(() => checkDisk(join(folder, "no"), "raw"), { status: 1, message: /ENOENT/ });
    const image = join(folder, "image");
    writeFileSync(image, qcow2Image({}));
    assert.throws(() => checkDisk(image, "raw"), { status: 1, message: /--disk-format qcow2/ });
    assert.deepEqual(checkDisk(image, "qcow2"), { path: image, format: "qcow2", isDevice: false });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
