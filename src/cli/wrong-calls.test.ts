/**
 * Wrong calls of every command: one line on standard error, the right status, nothing left behind.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { judge, report } from "../errors.ts";
import { runCommandLine } from "./command-line.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const LONG = `/tmp/${"x".repeat(99)}`;

/** Words, `%` for a folder of the test's own; what the line must say. */
const USAGE: readonly (readonly [string, RegExp])[] = [
  ["nosuch", /unknown command 'nosuch'/],
  ["serve", /'--socket <path>' not specified/],
  ["serve --socket %/s extra", /too many arguments/],
  ["serve --socket %/s --soket x", /unknown option '--soket'/],
  [`serve --socket ${LONG}`, /at most 103 bytes, and this one 104/],
  ["serve --socket %/s --queues 0", /--queues 0: use a whole number from 1 to 8/],
  ["serve --socket %/s --queues 9", /from 1 to 8/],
  ["serve --socket %/s --queues 1.5", /from 1 to 8/],
  ["serve --socket %/s --bufs 8", /--bufs 8: use a whole number from 16 to 8192/],
  ["serve --socket %/s --rx-bufs 17", /power of two/],
  ["serve --socket %/s --tx-bufs 16384", /--tx-bufs 16384: .* 8192/],
  ["serve --socket %/s --mtu 67", /--mtu 67: .* from 68/],
  ["serve --socket %/s --mtu 65536", /to 65535/],
  ["serve --socket %/s --spin 99999999", /--spin 99999999: .* to 100000/],
  ["serve --socket %/s --spin -1", /--spin/],
  ["serve --socket %/s --speed 800001", /--speed 800001: .* from 0 to 800000/],
  ["serve --socket %/s --answer-delay 99999", /--answer-delay 99999: .* to 4000/],
  ["serve --socket %/s --offloads none,tso", /none stands alone/],
  ["serve --socket %/s --offloads tso,gso", /unknown offload "gso": there are txcsum/],
  ["serve --socket %/s --offloads all,tso", /all stands alone/],
  ["serve --socket %/s --mtu 1500 --max-mtu 1400", /mtu 1500: .* at most 1400/],
  ["serve --config %/text", /text: Invalid TOML document/],
  ["serve --config %/empty --mtu 1400", /--mtu does not go with --config/],
  ["serve --config %/empty", /empty: no NIC: write \[nic\]/],
  ["serve --socket %/s --device e1000", /unknown device "e1000"/],
  ["serve --socket %/s --log-level loud", /unknown log level "loud"/],
  ["serve --socket %/s --mac 1:2", /write six bytes/],
  ["serve --socket %/s --net tap", /tap:tap0/],
  ["serve --socket %/s --net tap:x,foo=1", /there are netns=VALUE, create$/],
  ["serve --socket %/s --net pcap", /pcap:write=/],
  [`backend --path ${LONG}`, /at most 103 bytes/],
  ["backend --path %/s --sleep 1001", /--sleep 1001: .* to 1000/],
  ["backend --path %/s --device e1000", /unknown device/],
  ["backend --path %/s --backend netmap", /not supported: use tap/],
  ["backend --path %/s --tap-address 10.0.0.1/24", /goes with --create-tap/],
  [`drive --socket ${LONG}`, /at most 103 bytes/],
  ["drive --socket %/s --packets 0", /--packets 0: .* from 1/],
  ["drive --socket %/s --size 59", /--size 59: 0, or 60 to 1514/],
  ["drive --socket %/s --size 1515", /--size 1515/],
  ["drive --socket %/s --duration 0", /use seconds/],
  ["drive --socket %/s --bufs 100", /power of two/],
  ["drive --socket %/s --wait 0", /--wait 0: .* from 1/],
  ["drive --socket %/s --load heavy", /--load <kind>/],
  ["top --count 1.5", /--count 1\.5: .*whole number/],
  ["top --count 0", /--count 0/],
  ["top --interval 0", /--interval 0: .* 0\.1 to 3600/],
  ["set-mtu %/s many", /mtu many: use a whole number from 68 to 65535/],
  ["set-port %/s tape:x", /unknown net "tape:x"/],
  ["vm", /--socket is missing/],
  [`vm --socket ${LONG}`, /at most 103 bytes/],
  ["vm --socket %/s --smp 0", /1 to 255/],
  ["vm --socket %/s --memory 1", /at least 32M/],
  ["vm --socket %/s --disk %/text --disk-format vmdk", /raw, qcow2/],
  ["vm --socket %/s --snapshot", /need --disk/],
  ["compile %/ok.ts --define nosuch=3", /--define nosuch: .*ok\.ts declares A$/],
  ["compile %/ok.ts --define A", /write NAME=VALUE/],
  ["compile %/ok.ts --to coff", /asm, hex, elf/],
  ["verify", /give a file, or --device/],
  ["verify %/text --context-size 0", /--context-size 0: .* from 1/],
  ["verify --device e1000", /unknown device/],
  ["verify --device sring --bufs 100", /power of two/],
  ["run %/text --repeat 0", /--repeat 0: .* from 1/],
  ["run %/text --size 99999999999", /--size 99999999999/],
  ["run %/text --step-limit x", /--step-limit x/],
  ["disasm", /missing required argument 'file'/],
  ["conformance --plugin --cases %", /either --cases or --plugin/],
];

const FAILURES: readonly (readonly [string, RegExp])[] = [
  ["vm --socket %/s --kernel %/text", /no NIC is served on .*: start `bpfhv serve/],
  ["vm --print --socket %/s --accel tcg --qemu %/qemu --kernel %", /is not a file/],
  ["vm --print --socket %/s --accel tcg --qemu %/qemu --disk %", /neither a file nor a block/],
  ["vm --print --socket %/s --accel tcg --qemu %/qemu --disk %/no", /cannot read .*ENOENT/],
  ["vm --print --socket %/s --accel tcg --qemu %/no --kernel %/text", /cannot run .*ENOENT/],
  ["status %/none", /no NIC is served on .*start one with bpfhv serve/],
  ["set-mtu %/none 1500", /no NIC is served/],
  ["set-port %/none sink", /no NIC is served/],
  ["compile %/ok.ts --define A=1 --output %/no/x.o", /cannot write .*x\.o \(ENOENT\)/],
  ["compile %/empty", /no programs here/],
  ["compile %/no.ts", /no\.ts cannot be read/],
  ["serve --config %/none.toml", /cannot read .*none\.toml: ENOENT/],
  ["apply %/none.toml", /cannot read .*none\.toml: ENOENT/],
  ["apply %", /cannot read .*EISDIR/],
  ["disasm %/no", /cannot read .*ENOENT/],
  ["disasm %/empty", /nothing in it/],
  ["run %", /cannot read .*EISDIR/],
  ["verify %/text --context-size 64", /text/],
  ["conformance --cases %/no", /cannot read .*ENOENT/],
];

/** Wrong only once the server is at work: a process each, all at once. */
const IN_THE_MIDDLE: readonly (readonly [string, RegExp])[] = [
  ["serve --socket %/s --pid-file %/no/p", /cannot write the pid file: ENOENT/],
  ["serve --socket %/s --net pcap:replay=%/no", /no such file; record one/],
  ["serve --socket %/s --net tap:bpfhv-none", /no such interface .*ip tuntap add/],
  ["serve --socket %/no/s", /no such file or directory .*make its folder/],
  ["backend --path %/s --backend sink", /start the original's QEMU fork first/],
  ["drive --socket %/no/s", /make its folder first/],
];

describe("a wrong call", () => {
  let folder: string;
  let files: string[];

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "bpfhv-wrong-"));
    writeFileSync(join(folder, "empty"), "");
    writeFileSync(join(folder, "text"), "no program");
    const program = "declare const A: number;\nexport function rxr(): number {\n  return A;\n}\n";
    writeFileSync(join(folder, "ok.ts"), program);
    const qemu = "#!/bin/sh\necho 'QEMU emulator version 10.1.0'; echo '\"vfio-user-pci\" vvfat'\n";
    writeFileSync(join(folder, "qemu"), qemu, { mode: 0o755 });
    mkdirSync(join(folder, "empty-folder"));
    files = readdirSync(folder).sort();
  });
  after(() => rmSync(folder, { recursive: true }));

  async function stderrOf(words: string): Promise<{ text: string; status: number | undefined }> {
    const written: string[] = [];
    const { write } = process.stderr;
    process.stderr.write = (text: string | Uint8Array) => written.push(String(text)) > 0;
    try {
      const status = await runCommandLine(words.replaceAll("%", folder).split(" "), "0");
      return { text: written.join(""), status };
    } finally {
      process.stderr.write = write;
    }
  }

  for (const [words, reason] of IN_THE_MIDDLE) {
    test(`bpfhv ${words}: one line, status 1, nothing left`, async () => {
      const own = mkdtempSync(join(folder, "own-"));
      const child = spawn(process.execPath, [MAIN, ...words.replaceAll("%", own).split(" ")], {
        stdio: ["ignore", "ignore", "pipe"],
        timeout: 30_000,
      });
      let errors = "";
      child.stderr.on("data", (chunk) => {
        errors += chunk;
      });
      const status = await new Promise((resolve) => child.once("close", resolve));
      assert.match(errors, /^bpfhv: [^\n]+\n$/);
      assert.match(errors, reason);
      assert.equal(status, 1);
      assert.deepEqual(readdirSync(own), []);
      rmSync(own, { recursive: true });
    });
  }

  for (const [status, table] of [
    [2, USAGE],
    [1, FAILURES],
  ] as const) {
    for (const [words, reason] of table) {
      test(`bpfhv ${words.replaceAll(LONG, "LONG")}: one line, status ${status}`, async () => {
        const seen = await stderrOf(words);
        assert.match(seen.text, /^bpfhv: [^\n]+\n$/);
        assert.match(seen.text.trim().replace(/ \(add --help for the options\)$/, ""), reason);
        assert.equal(seen.status, status);
        assert.deepEqual(readdirSync(folder).sort(), files);
      });
    }
  }
});

test("report tells a system error as a failure and an unforeseen one as a bug", (t) => {
  const refused = Object.assign(new Error("EACCES: permission denied, open '/x'"), {
    code: "EACCES",
  });
  assert.deepEqual(judge(refused), { line: refused.message, status: 1 });
  const bug = judge(new TypeError("x is not a function\nmore"));
  assert.match(bug.line, /^internal error: TypeError: x is not a function \(.*BPFHV_TRACE=1/);
  assert.doesNotMatch(bug.line, /\n/);
  assert.equal(bug.status, 70);
  assert.equal(judge("text").status, 70);
  const misused = Object.assign(new Error("bad argument"), { code: "ERR_INVALID_ARG_TYPE" });
  assert.equal(judge(misused).status, 70);
  const write = t.mock.method(process.stderr, "write", () => true);
  process.env.BPFHV_TRACE = "1";
  try {
    assert.equal(report(new TypeError("oops")), 70);
  } finally {
    delete process.env.BPFHV_TRACE;
  }
  const text = write.mock.calls.map((call) => String(call.arguments[0])).join("");
  assert.match(text, /^bpfhv: internal error: TypeError: oops .*\nTypeError: oops\n +at /);
});

test("a command ends silently when the reader of its output exits", async () => {
  const child = spawn(process.execPath, [MAIN, "verify", "--device", "sring", "-v", "-v"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.once("data", () => child.stdout.destroy());
  let errors = "";
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  const status = await new Promise((resolve) => child.once("close", resolve));
  assert.deepEqual([errors, status], ["", 0]);
});

test("an object is not written to a terminal", () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-elf-"));
  try {
    const file = join(folder, "ok.ts");
    writeFileSync(file, "export function rxr(): number {\n  return 1;\n}\n");
    const words = `'${process.execPath}' '${MAIN}' compile '${file}' --to elf`;
    const atTerminal = spawnSync("script", ["-qec", words, "/dev/null"], { encoding: "utf8" });
    const refusal = "bpfhv: --to elf is binary: give -o FILE, or redirect the output";
    assert.equal(atTerminal.stdout.trim(), refusal);
    assert.equal(atTerminal.status, 2);
    const piped = spawnSync("/bin/sh", ["-c", words]);
    assert.equal(piped.stdout.subarray(1, 4).toString(), "ELF");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the process exits with the command's status and its one line", () => {
  const { status, stderr } = spawnSync(process.execPath, [MAIN, "verify", "--bufs", "1"], {
    encoding: "utf8",
  });
  assert.equal(stderr, "bpfhv: --bufs 1: use a whole number from 16 to 8192\n");
  assert.equal(status, 2);
  assert.match(execFileSync(process.execPath, [MAIN, "--version"], { encoding: "utf8" }), /^\d+\./);
});
