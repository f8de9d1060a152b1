/**
 * Changes of a running NIC's port, and other processes that serve it: the guest needs no help, and
 * each packet is accounted for.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { DROP_COUNTERS } from "../../src/memory/counters.ts";
import type { NicStatus } from "../../src/nic/status.ts";
import { untilAnswered } from "../support/vm/first-answer.ts";
import { Netns } from "../support/vm/harness.ts";
import { MODULE, NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";
import { patience, sleep, until } from "../support/vm/time.ts";

const skip = await withoutVm();
const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const run = promisify(execFile);
const CHANGES = 10;
const PINGS = 600;
const KILLS = isFull ? 20 : 1;
/** The server's end, and when it comes. */
const ENDS: readonly NodeJS.Signals[] = [...Array(KILLS).fill("SIGKILL"), "SIGTERM"];
const ECHO_REPLY = "Type0";
const ECHO_REQUEST = "Type8";

interface Kept {
  readonly pid: number;
  readonly crash: { readonly times: number; readonly lost: number };
}

describe("port of a running NIC", { skip, timeout: patience(180_000) }, () => {
  let vm: NicGuest;
  let second: Netns;
  const ports: string[] = [];

  before(async () => {
    vm = await NicGuest.start({ label: "port", kept: true });
    second = Netns.make("second");
    second.addTap({ name: "tap1", address: "10.88.0.1/24" });
    // As when a host's bridge moves: for the guest it is the same neighbour.
    const [{ address }] = JSON.parse(vm.netns.exec(["ip", "-j", "link", "show", "tap0"]));
    second.exec(["ip", "link", "set", "tap1", "address", address]);
    ports.push(`tap:tap0,netns=${vm.netns.name}`, `tap:tap1,netns=${second.name}`);
    await vm.load();
  });

  after(async () => {
    assert.deepEqual(await vm?.close(), { aborted: false, serveCode: 0 });
    second?.close();
  });

  const setPort = (port: string) =>
    run(process.execPath, [MAIN, "set-port", vm.nic.socket, port], { timeout: 10_000 });
  const carrierChanges = async () =>
    Number(await vm.guest.check("cat /sys/class/net/eth0/carrier_changes"));

  /** Returns the packets that both TAPs' kernels received from the NIC and sent to it. */
  function tapPackets(): { fromNic: number; toNic: number } {
    const taps = [vm.netns.exec(["ip", "-j", "-s", "link", "show", "tap0"])];
    taps.push(second.exec(["ip", "-j", "-s", "link", "show", "tap1"]));
    const stats = taps.map((text) => JSON.parse(text)[0].stats64);
    return {
      fromNic: stats[0].rx.packets + stats[1].rx.packets,
      toNic: stats[0].tx.packets + stats[1].tx.packets,
    };
  }

  /**
   * Returns the ICMP messages that a kernel counted, by direction and type: {"InType8": 600, …}.
   */
  function icmpIn(snmp: string): Map<string, number> {
    const [names, values] = [...snmp.matchAll(/^IcmpMsg: (.*)$/gm)].map(([, rest]) =>
      rest.split(" "),
    );
    return new Map((names ?? []).map((name, i) => [name, Number(values[i])]));
  }

  /** Returns the guest kernel's counts of its pings, and the sum of both hosts'. */
  async function pingCounts() {
    const show = "cat /proc/net/snmp";
    const guest = icmpIn(await vm.guest.check(show));
    const hosts = [vm.netns, second].map((netns) => icmpIn(netns.exec(show.split(" "))));
    const both = (name: string) => hosts.reduce((sum, host) => sum + (host.get(name) ?? 0), 0);
    return {
      sent: guest.get(`Out${ECHO_REQUEST}`) ?? 0,
      arrived: both(`In${ECHO_REQUEST}`),
      answered: both(`Out${ECHO_REPLY}`),
      received: guest.get(`In${ECHO_REPLY}`) ?? 0,
    };
  }

  test("moves between TAPs under a flood without a link change, and every packet is accounted for", async (t) => {
    const changes = await carrierChanges();
    await vm.guest.check(untilAnswered("10.88.0.1"));
    const before = await pingCounts();
    await vm.guest.check(`ping -n -q -i 0.005 -c ${PINGS} 10.88.0.1 >/tmp/ping.txt 2>&1 &`);
    const stop = vm.floodFromHost(2);
    for (let n = 1; n <= CHANGES; n++) {
      await sleep(200);
      const { stdout } = await setPort(ports[n % 2]);
      assert.match(stdout, new RegExp(`packets to tap:tap${n % 2}, link up`));
      // The old TAP is closed: this reply came through the new one.
      await vm.guest.check(untilAnswered("10.88.0.1"));
    }
    stop();
    await vm.guest.check("while pidof ping >/dev/null; do sleep 0.1; done");
    assert.equal(await carrierChanges(), changes, "the guest's link never changed");
    const { queues } = await vm.nic.status();
    for (const { queue, counters } of queues) {
      for (const name of DROP_COUNTERS) assert.equal(counters[name], 0, `${queue} ${name}`);
    }
    await until(5000, "the counters of NIC and TAPs to agree", async () => {
      const [rx, tx] = (await vm.nic.status()).queues.map(({ counters }) => counters.packets);
      const { fromNic, toNic } = tapPackets();
      return fromNic === tx && toNic === rx;
    });
    const now = await pingCounts();
    const sent = now.sent - before.sent;
    assert.ok(sent >= PINGS, `${sent} pings left the guest`);
    assert.equal(now.arrived - before.arrived, sent, "each reached one of the two hosts");
    assert.equal(now.answered - before.answered, sent, "and was answered");
    // The NIC delivered all that it took from the TAPs. The rest was in a TAP's queue when it was
    // closed. Its length depends on the guest's delay, so on the machine.
    const received = now.received - before.received;
    t.diagnostic(`${sent - received} of ${sent} replies were in an old TAP's queue`);
    const ping = await vm.guest.check("cat /tmp/ping.txt");
    assert.match(ping, new RegExp(`^${PINGS} packets transmitted`, "m"));
  });

  test("stays as it is when the new one cannot be opened", async () => {
    await assert.rejects(setPort("tap:nosuchtap"), /the port stays as it was/);
    assert.equal(await vm.pings(), 0);
  });

  test("takes the guest's link down when it has no link, and up when it has one", async () => {
    const changes = await carrierChanges();
    await setPort("null");
    const carrier = () => vm.guest.check("cat /sys/class/net/eth0/carrier");
    await until(5000, "the link to go down", async () => (await carrier()).trim() === "0");
    await setPort(ports[0]);
    await until(5000, "the link to come up", async () => (await carrier()).trim() === "1");
    assert.equal(await carrierChanges(), changes + 2);
    assert.equal(await vm.pings(), 0);
  });

  /** Of the process that serves, under the keeper. */
  const server = async () => (await vm.nic.status().catch(() => null)) as (NicStatus & Kept) | null;

  /** Ends the server. @returns the status of the next one */
  async function replaceServer(signal: NodeJS.Signals): Promise<NicStatus & Kept> {
    const { pid } = (await server())!;
    process.kill(pid, signal);
    const next = async () => {
      const status = await server();
      return status?.pid !== pid && status?.step === "enabled" ? status : null;
    };
    await until(patience(30_000), "the next server", async () => (await next()) !== null);
    return (await next())!;
  }

  test("stays with the guest when its server is killed, and when it is restarted", async (t) => {
    const changes = await carrierChanges();
    await vm.guest.check(untilAnswered("10.88.0.1"));
    const count = 100 * ENDS.length;
    await vm.guest.check(`ping -n -i 0.01 -c ${count} 10.88.0.1 >/tmp/ping.txt 2>&1 &`);
    for (const signal of ENDS) {
      await sleep(300);
      const since = performance.now();
      const { crash } = await replaceServer(signal);
      const ms = (performance.now() - since).toFixed();
      t.diagnostic(`${signal}: the next one after ${ms} ms, ${JSON.stringify(crash)}`);
    }
    await vm.guest.check("while pidof ping >/dev/null; do sleep 0.1; done");
    const ping = await vm.guest.check("cat /tmp/ping.txt");
    const received = Number(/, (\d+) (packets )?received/.exec(ping)?.[1]);
    const { crash } = (await server())!;
    t.diagnostic(`${received} of ${count} pings`);
    assert.ok(received >= count - crash.lost, `${received} received, ${crash.lost} told lost`);
    assert.doesNotMatch(ping, /DUP|duplicates/);
    assert.equal(await carrierChanges(), changes, "the guest's link never changed");
    assert.equal(crash.times, KILLS);
  });

  test("is there for the guest's driver when its server is killed while that loads", async () => {
    await vm.guest.check("rmmod bpfhv");
    const { pid } = (await server())!;
    const loading = vm.guest.check(`insmod ${MODULE}`);
    process.kill(pid, "SIGKILL");
    await loading;
    await vm.configure();
    assert.equal(await vm.pings(), 0);
  });
});
