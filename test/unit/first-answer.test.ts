/** Counts of lost packets start after the first reply. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { untilAnswered } from "../support/vm/first-answer.ts";
import type { Guest, GuestParts, Netns } from "../support/vm/harness.ts";
import { Link } from "../support/vm/traffic.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-answer-"));
const ping = join(folder, "ping");
const asked = join(folder, "asked");
after(() => rmSync(folder, { recursive: true, force: true }));

/** Creates a `ping` without replies to the first requests. */
function makePing(unanswered: number): void {
  writeFileSync(asked, "");
  const script = `#!/bin/sh
echo "$*" >>${asked}
[ $(wc -l <${asked}) -gt ${unanswered} ] || exit 1
[ "$2" = -c ] || exit 0
# Of ten that count and those behind: all answered but the ones in LOST and the last.
for seq in $(seq 1 $(($3 - 1))); do
  case " $LOST " in *" $seq "*) ;; *) echo "64 bytes from x: icmp_seq=$seq ttl=64 time=2 ms" ;; esac
done
echo "$3 packets transmitted, $(($3 - 1)) received, 9% packet loss, time 9ms
rtt min/avg/max/mdev = 1.0/2.5/3.0/0.1 ms"`;
  writeFileSync(ping, script);
  chmodSync(ping, 0o755);
}

const calls = (): string[] => readFileSync(asked, "utf8").trim().split("\n");
const sh = (script: string) => spawnSync("sh", ["-c", script], { encoding: "utf8" });

test("untilAnswered repeats when the first pings have no reply", () => {
  makePing(2);
  const { status } = sh(`${untilAnswered("10.0.0.1", { ping, seconds: 9 })}\necho counted`);
  assert.equal(status, 0);
  assert.equal(calls().length, 3);
});

test("untilAnswered exits with status 1 and a message when there is no reply", () => {
  makePing(1000);
  const result = sh(`${untilAnswered("10.0.0.1", { ping, seconds: 3 })}\necho counted`);
  assert.equal(result.status, 1);
  assert.match(result.stderr, /10\.0\.0\.1 does not answer/);
  assert.doesNotMatch(result.stdout, /counted/);
});

function madeLink(): Link {
  const guest = {
    run: async (script: string) => {
      const { status, stdout } = sh(`PATH=${folder}:$PATH\n${script}`);
      return { status, output: stdout };
    },
  } as unknown as Guest;
  const netns = {
    spawn: () => ({}),
    exec: ([, , script]: string[]) => sh(script!).stdout,
  } as unknown as Netns;
  const parts = { iperf3: "iperf3", ping } as unknown as GuestParts;
  return new Link({ guest, netns, parts, host: "10.0.0.1", peer: "10.0.0.2" });
}

test("Link counts no ping as lost when the last reply comes after ping has ended", async () => {
  const link = madeLink();
  makePing(0);
  assert.deepEqual(await link.pingFromGuest(10), { sent: 10, received: 10, rttMs: 2.5 });
  process.env.LOST = "3 10";
  try {
    assert.equal((await link.pingFromGuest(10)).received, 8);
    assert.equal(link.pingFromHost(10).received, 8);
  } finally {
    delete process.env.LOST;
  }
});

test("Link counts no ping as lost when only those before the first reply were lost", async () => {
  const link = madeLink();
  makePing(2);
  assert.deepEqual(await link.pingFromGuest(10), { sent: 10, received: 10, rttMs: 2.5 });
  makePing(2);
  assert.deepEqual(link.pingFromHost(10), { sent: 10, received: 10, rttMs: 2.5 });
  assert.equal(calls().length, 4);
});
