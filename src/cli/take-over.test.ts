/** `bpfhv serve --take-over`: two processes, a VMM that is this one, frames both ways on a TAP. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { skipTap, TapPair } from "../../test/support/net.ts";
import { NumberedLoad } from "../../test/support/numbered-load.ts";
import { closeServers, type Server, startServer } from "../../test/support/servers.ts";
import { statusOf } from "../control/client.ts";

const skip = skipTap();
const TIMES = process.env.BPFHV_FULL === "1" ? 20 : 2;
const RATE = 4000;

after(closeServers);

async function served(...words: string[]): Promise<{ server: Server; pair: TapPair }> {
  const pair = new TapPair();
  const server = await startServer(["--net", `tap:nic,netns=${pair.netns}`, ...words]);
  return { server, pair };
}

const median = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

test(`no packet is lost when ${TIMES} servers take over one after the other under load`, {
  skip,
}, async (t) => {
  const { server: first, pair } = await served();
  let server = first;
  const { socket } = server;
  const load = new NumberedLoad({ socket, pair, rate: RATE });
  const gaps: number[] = [];
  const idle: number[] = [];
  const standing: number[] = [];
  try {
    load.start();
    await sleep(300);
    for (let n = 0; n < TIMES; n++) {
      load.gap();
      await sleep(200);
      idle.push(load.gap());
      const next = await startServer(["--take-over", socket], { socket });
      assert.deepEqual(await server.ended, 0, server.err());
      standing.push(Number(/handed over in ([\d.]+) ms/.exec(server.err())?.[1]));
      await sleep(50);
      gaps.push(load.gap());
      server = next;
      const { pid, step } = (await statusOf(socket)) as { pid: number; step: string };
      assert.deepEqual([pid, step], [server.child.pid, "enabled"]);
    }
    await load.stop();
    assert.ok(load.sentByGuest > 1000 && load.sentByHost > 1000);
    assert.deepEqual(load.result, { lost: 0, duplicated: 0, reordered: 0 });
    const shown = (values: number[]) => values.map((ms) => ms.toFixed(1)).join(" ");
    t.diagnostic(`standing ${shown(standing)}, median ${median(standing)}`);
    t.diagnostic(`gaps ${shown(gaps)} ms, median ${median(gaps).toFixed(1)}; idle ${shown(idle)}`);
  } finally {
    load.close();
    pair.close();
  }
});
