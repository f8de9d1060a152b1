/** `bpfhv dev`: the command itself, a file that is edited, and what it says of each save. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { until } from "../../test/support/os.ts";
import type { DevEvent } from "./dev/report.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const MINI = readFileSync(new URL("../../../examples/mini-ring.ts", import.meta.url), "utf8");
const folder = mkdtempSync(join(tmpdir(), "bpfhv-dev-"));
const file = join(folder, "nic.ts");
const started = new Set<ChildProcess>();
after(() => {
  for (const child of started) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

/** MINI with other text: a test whose edit finds nothing would prove nothing. */
function edited(from: string, to: string, text = MINI): string {
  assert.ok(text.includes(from), from);
  return text.replace(from, to);
}

class Dev {
  readonly events: DevEvent[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  errors = "";

  constructor(...words: string[]) {
    this.#child = spawn(process.execPath, [MAIN, "dev", file, "--json", ...words]);
    started.add(this.#child);
    createInterface({ input: this.#child.stdout! }).on("line", (line) => {
      this.events.push(JSON.parse(line) as DevEvent);
    });
    this.#child.stderr!.on("data", (text) => {
      this.errors += text;
    });
    this.#ended = new Promise((resolve) => this.#child.once("exit", resolve));
  }

  /** The next event of a kind after those that there are. */
  async next<Name extends DevEvent["event"]>(
    name: Name,
    save: () => void,
  ): Promise<DevEvent & { event: Name }> {
    const before = this.events.length;
    save();
    const is = (each: DevEvent): each is DevEvent & { event: Name } => each.event === name;
    return until(`event ${name}`, () => this.events.slice(before).find(is));
  }

  async stop(): Promise<number | null> {
    this.#child.kill("SIGINT");
    const status = await this.#ended;
    started.delete(this.#child);
    return status;
  }
}

test("dev replaces the NIC on each save, and keeps it when a save is wrong", async () => {
  writeFileSync(file, MINI);
  const dev = new Dev("--bufs", "64");
  await dev.next("started", () => {});

  // In place, and as editors do that write another file first.
  const longer = edited("return txi(context);", "const armed = txi(context);\n  return armed;");
  const swapped = await dev.next("swapped", () => writeFileSync(file, longer));
  assert.equal(swapped.device, "mini_ring");
  assert.ok(Object.values(swapped.phases).every((ms) => ms >= 0));
  assert.ok(swapped.phases.compile + swapped.phases.swap <= swapped.ms);
  const renamed = edited('name: "mini_ring"', 'name: "renamed"');
  const { device, instructions } = await dev.next("swapped", () => {
    writeFileSync(join(folder, ".nic.ts.swp"), renamed);
    renameSync(join(folder, ".nic.ts.swp"), file);
  });
  assert.equal(device, "renamed");
  assert.equal(Object.keys(instructions).length, 8);
  const rate = await until("rate", () => dev.events.find((each) => each.event === "rate"));
  assert.ok(rate.event === "rate" && rate.after > 0 && rate.lost === 0);

  // In each phase. The place is that of the TypeScript file.
  const wrong: [string, string, string, string][] = [
    ["compile", "const kick = ring.kick;", "const kick = ;", "Unexpected token"],
    ["compile", "ring.intr = ring.prod;", "ring.nothing = ring.prod;", "nothing"],
    ["compile", 'name: "mini_ring"', 'name: "Mini Ring"', 'name "Mini Ring"'],
    ["compile", '"bpfhv/nic"', '"bpfhv/none"', "cannot resolve"],
    ["verify", "[index & (bufs - 1)]", "[index]", "no bound"],
    [
      "load",
      "const control = new",
      "if (name) throw new Error('mine');\n  const control = new",
      "mine",
    ],
  ];
  for (const [phase, from, to, message] of wrong) {
    const text = edited(from, to);
    const refused = await dev.next("refused", () => writeFileSync(file, text));
    assert.equal(refused.phase, phase, refused.message);
    assert.ok(refused.message.includes(message), refused.message);
    assert.equal(refused.file, file, refused.message);
    const line = text.split("\n")[Number(refused.line) - 1];
    const [expected] = to.split("\n");
    const isNear = line.includes(expected) || to === 'name: "Mini Ring"';
    assert.ok(isNear && Number(refused.column) > 0, `${message}: line ${refused.line}: ${line}`);
  }
  await dev.next("swapped", () => writeFileSync(file, MINI));

  // Gone, and back; in two steps; saved without a change.
  await dev.next("missing", () => rmSync(file));
  await dev.next("swapped", () => writeFileSync(file, longer));
  await dev.next("swapped", () => {
    writeFileSync(file, "");
    setTimeout(() => writeFileSync(file, MINI), 60);
  });
  const count = dev.events.filter(({ event }) => event === "swapped").length;
  writeFileSync(file, MINI);
  await sleep(300);
  assert.equal(dev.events.filter(({ event }) => event === "swapped").length, count);

  assert.equal(await dev.stop(), 0, dev.errors);
  const last = dev.events.at(-1);
  assert.ok(last?.event === "stopped" && last.packets > 1000);
  assert.deepEqual([last.lost, last.repeated, last.damaged], [0, 0, 0]);
});

test("dev finds what hangs or loses packets in a trial, and the NIC of before carries on", async () => {
  writeFileSync(file, MINI);
  const dev = new Dev("--bufs", "16");
  await dev.next("started", () => {});
  const control = "const control = new";
  const hangs = edited(control, `if (name === "mini.txq") for (;;);\n  ${control}`);
  const hung = await dev.next("refused", () => writeFileSync(file, hangs));
  assert.deepEqual([hung.phase, /does a loop never end/.test(hung.message)], ["load", true]);
  const loses = edited('tx: (ring) => nic.joinTx(...parts("mini.txq", ring)),', LOSES);
  const lost = await dev.next("refused", () => writeFileSync(file, loses));
  assert.match(lost.message, /^of \d+ packets from the guest, .* [1-9]\d* damaged/);
  await dev.next("swapped", () => writeFileSync(file, `${MINI}// once more\n`));
  assert.equal(await dev.stop(), 0, dev.errors);
});

const LOSES = `tx: (ring) => {
    const made = nic.joinTx(...parts("mini.txq", ring));
    const gather = made.gather.bind(made);
    made.gather = (batch) => {
      const packets = gather(batch);
      if (packets > 0) batch.length[0]--;
      return packets;
    };
    return made;
  },`;

test("dev is refused a file that is not there, or is not TypeScript", () => {
  const run = (...words: string[]) =>
    spawnSync(process.execPath, [MAIN, "dev", ...words], { encoding: "utf8" });
  const missing = run(join(folder, "none.ts"));
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /^bpfhv: .*none\.ts is not there: bpfhv new writes a start\n$/);
  assert.equal(run("nic.js").status, 2);
  assert.equal(run(file, "--bufs", "17").status, 2);
});
