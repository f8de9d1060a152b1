/**
 * Files that QEMU opens for `bpfhv vm --disk`, when a guest has written the image's first bytes.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { DiskFormat } from "../../src/vm/disk-image.ts";
import { qemuCommand } from "../../src/vm/qemu-command.ts";
import { qcow2Image } from "../support/cli.ts";
import { prepareGuest } from "../support/vm/harness.ts";
import { withoutVm } from "../support/vm/requirements.ts";

const skip = await withoutVm();

interface Node {
  readonly "node-name": string;
  readonly drv: string;
  readonly file: string;
  readonly ro: boolean;
}

describe("QEMU and a disk of bpfhv vm", { skip, timeout: 60_000 }, () => {
  let folder: string;
  let secret: string;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "bpfhv-disk-"));
    secret = join(folder, "secret");
    writeFileSync(secret, Buffer.alloc(1 << 20, "secret"));
  });
  after(() => rmSync(folder, { recursive: true }));

  /** Returns the block nodes of a QEMU whose guest is not started. */
  async function nodesOf(image: Buffer, format: DiskFormat, snapshot = false): Promise<Node[]> {
    const path = join(folder, "image");
    writeFileSync(path, image);
    const { qemu } = await prepareGuest();
    const [program, ...words] = qemuCommand({
      ...{ qemu, accelerator: "tcg", memoryMiB: 64, cpus: 1, devices: [] },
      boot: { disk: { path, format, isDevice: false }, snapshot },
      extra: ["-S", "-qmp", "stdio"],
    });
    const child = spawn(program!, words, { stdio: ["pipe", "pipe", "pipe"], timeout: 20_000 });
    const commands = ["qmp_capabilities", "query-named-block-nodes", "quit"];
    child.stdin.end(commands.map((execute) => `${JSON.stringify({ execute })}\n`).join(""));
    let [out, errors] = ["", ""];
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    child.stderr.on("data", (chunk) => {
      errors += chunk;
    });
    assert.equal(await new Promise((resolve) => child.once("close", resolve)), 0, errors);
    const answers = out.trim().split("\n");
    const found = answers.map((line) => JSON.parse(line)).find((a) => Array.isArray(a.return));
    return found.return as Node[];
  }

  test("raw image stays raw when its guest wrote a qcow2 header", async () => {
    const nodes = await nodesOf(qcow2Image({ backing: secret }), "raw");
    assert.deepEqual(nodes.map(({ drv }) => drv).sort(), ["file", "raw"]);
    assert.ok(nodes.every(({ file }) => !file.includes("secret")));
  });

  test("backing file is not opened when a qcow2 image names one after the check", async () => {
    const nodes = await nodesOf(qcow2Image({ backing: secret }), "qcow2");
    assert.deepEqual(nodes.map(({ drv }) => drv).sort(), ["file", "qcow2"]);
    assert.ok(nodes.every(({ file }) => !file.includes("secret")));
  });

  for (const format of ["raw", "qcow2"] as const) {
    test(`image of ${format} is read-only when --snapshot is given`, async () => {
      const image = qcow2Image({ backing: secret });
      const nodes = await nodesOf(image, format, true);
      const own = nodes.filter(({ file }) => file.includes(join(folder, "image")));
      assert.ok(own.length > 0);
      assert.equal(nodes.find(({ drv, ro }) => drv === format && ro) !== undefined, true);
      for (const { drv, ro } of own) if (drv === "file") assert.equal(ro, true);
      assert.ok(nodes.every(({ file }) => !file.includes("secret")));
      assert.deepEqual(readFileSync(join(folder, "image")), image);
    });
  }
});
