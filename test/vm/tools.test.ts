/**
 * What standard tools ask of a NIC: addresses, filters, what ethtool shows and changes. The guest
 * has a virtio-net (`plain`) to compare with, and a second NIC of ours (eth1) whose host allows one
 * source address only.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { vfioUserDevice } from "../../src/vm/qemu-command.ts";
import { prepareGuest } from "../support/vm/harness.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { withoutVm } from "../support/vm/requirements.ts";
import { patience, until } from "../support/vm/time.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const run = promisify(execFile);
const skip = await withoutVm();
const OTHER = "52:54:00:aa:00:01";
/** Groups that the stack has not joined. */
const [GROUP, GROUP_2] = ["01:00:5e:01:02:03", "01:00:5e:01:02:04"];
const SPEED = 25_000;
const FRAMES = 3;
const PACKETS = 1000;
const HELD_US = 5000;

/** What `ethtool WORDS` answers, in this order; those with "no" end with an error. */
const ANSWERS: readonly (readonly [words: string, is: "yes" | "no", answer: RegExp])[] = [
  ["-i eth0", "yes", /driver: bpfhv[\s\S]*firmware-version: set \d+, verified/],
  ["-P eth0", "yes", /Permanent address: (?!00:00)([\da-f]{2}:){5}/],
  ["-a eth0", "no", /not supported/i],
  ["-A eth0 rx on", "no", /not supported/i],
  ["-C eth0 rx-usecs 20 tx-usecs 30 adaptive-tx on", "yes", /^$/],
  ["-c eth0", "yes", /Adaptive RX: off {2}TX: on[\s\S]*rx-usecs:\s+20[\s\S]*tx-usecs:\s+30/],
  // COALESCE, as the host gives it back: both directions.
  ["-d eth0", "yes", /0x00b0:\s+(?:.. ){8}14 00 1e 80 /],
  ["-C eth0 rx-usecs 0 tx-usecs 0 adaptive-tx off", "yes", /^$/],
  ["-C eth0 tx-usecs 10001", "no", /the longest time is 10000 microseconds/],
  ["-C eth0 rx-frames 3", "no", /unsupported parameter/],
  ["-g eth0", "yes", /RX:\s+256\n[\s\S]*TX:\s+256\n/],
  ["-G eth0 tx 128", "no", /the host chooses the ring sizes/],
  ["-l eth0", "yes", /RX:\s+2\s+TX:\s+2/],
  ["-L eth0 rx 1 tx 1", "no", /not supported/i],
  ["-k eth0", "yes", /receive-hashing: on\n/],
  ["-k eth0", "yes", /tx-tcp-ecn-segmentation: on\n[\s\S]*tx-gso-robust: on \[fixed\]/],
  ["-K eth0 tso off", "yes", /^$/],
  ["-k eth0", "yes", /tcp-segmentation-offload: off\n/],
  ["-K eth0 tso on", "yes", /^$/],
  ["-K eth0 tx-gso-robust off", "no", /Could not change/],
  ["-x eth0", "yes", /with 2 RX ring\(s\)[\s\S]*toeplitz: on/],
  ["-X eth0 weight 1 3", "yes", /^$/],
  ["-x eth0", "yes", /\n\s+0:(?:\s+0){8}\n[\s\S]*\n\s+120:(?:\s+1){8}\n/],
  ["-X eth0 equal 3", "no", /Invalid argument/],
  ["-X eth0 hfunc xor", "no", /not supported/i],
  ["-X eth0 context new", "no", /not supported/i],
  ["-X eth0 default", "yes", /^$/],
  ["-N eth0 rx-flow-hash tcp4 sd", "yes", /^$/],
  ["-n eth0 rx-flow-hash tcp4", "yes", /IP SA\s+IP DA\s*$/],
  ["-N eth0 rx-flow-hash tcp4 sdfn", "yes", /^$/],
  ["-N eth0 rx-flow-hash tcp4 v", "no", /not supported/i],
  ["-N eth0 flow-type tcp4 action 1", "no", /not supported/i],
  ["-T eth0", "yes", /software-transmit[\s\S]*software-receive/],
  ["-S eth0", "yes", /rx0_packets: \d+[\s\S]*tx1_stops: \d+/],
  ["-s eth0 autoneg on", "no", /link settings update failed/],
  ["-s eth0 wol g", "no", /not supported/i],
  ["-t eth0", "no", /not supported/i],
  ["-p eth0 1", "no", /not supported/i],
  ["-m eth0", "no", /not supported/i],
  ["-e eth0", "no", /not supported/i],
  ["-r eth0", "no", /not supported/i],
  ["--show-eee eth0", "no", /not supported/i],
  ["--show-fec eth0", "no", /not supported/i],
];

describe("standard tools in a guest", { skip, timeout: patience(180_000) }, () => {
  let vm: NicGuest;
  let guarded: ServedNic;
  let mac: string;

  before(async () => {
    guarded = await ServedNic.start("--net=sink", "--anti-spoof=mac");
    vm = await NicGuest.start({
      label: "tools",
      multiQueue: true,
      serve: ["--queues", "2", "--speed", `${SPEED}`, "--device", "sring_gso"],
      guest: {
        smp: 2,
        qemuArguments: ["-netdev", "hubport,id=plain,hubid=0"],
        devices: [
          vfioUserDevice(guarded.socket, { id: "guarded" }),
          { driver: "virtio-net-pci", netdev: "plain", romfile: "" },
        ],
      },
    });
    await vm.guest.check("ip link set eth0 name plain");
    await vm.load();
    mac = await address("eth0");
  });

  after(async () => {
    const ends = await vm?.close();
    await guarded?.stop();
    assert.deepEqual(ends, { aborted: false, serveCode: 0 });
  });

  const address = async (name: string): Promise<string> =>
    (await vm.guest.check(`cat /sys/class/net/${name}/address`)).trim();

  /** Frames that the host left out, on all queues. */
  async function filtered(): Promise<number> {
    const { queues } = await vm.nic.status();
    return queues.reduce((sum, { counters }) => sum + counters.filtered, 0);
  }

  /** Sends frames to an address from the host. @returns how many of them the host left out */
  async function leftOut(to: string): Promise<number> {
    const then = await filtered();
    vm.netns.exec(["ip", "neigh", "replace", vm.link.peer, "lladdr", to, "dev", "tap0"]);
    const { ping } = await prepareGuest();
    const words = [ping, "-q", "-c", `${FRAMES}`, "-i", "0.02", "-W", "1", vm.link.peer];
    // Exit status 1: no reply, as intended.
    vm.netns.exec(["sh", "-c", `${words.join(" ")} || test $? = 1`]);
    return (await filtered()) - then;
  }

  const forgetNeighbour = () => vm.netns.exec(["ip", "neigh", "del", vm.link.peer, "dev", "tap0"]);

  /** The guest's driver tells the host in a worker of its own. */
  async function untilLeftOut(to: string, count: number, what: string): Promise<void> {
    const all = async () => (await leftOut(to)) === count;
    await until(patience(5_000), what, all);
  }

  test("host leaves out frames that the guest does not listen to, as ip sets it", async () => {
    await untilLeftOut(OTHER, FRAMES, "another host's frames are left out");
    await untilLeftOut(mac, 0, "the guest's own frames pass");
    assert.equal(await leftOut(GROUP), FRAMES, "before ip maddr add");
    await vm.guest.check(`ip maddr add ${GROUP} dev eth0`);
    assert.match(await vm.guest.check("ip maddr show dev eth0"), new RegExp(GROUP));
    await untilLeftOut(GROUP, 0, "frames to the group pass");
    assert.equal(await leftOut(GROUP_2), FRAMES, "another group");
    await vm.guest.check("ip link set eth0 allmulticast on");
    await untilLeftOut(GROUP_2, 0, "every group passes");
    assert.equal(await leftOut(OTHER), FRAMES, "all multicast does not pass unicast");
    await vm.guest.check("ip link set eth0 promisc on");
    await untilLeftOut(OTHER, 0, "everything passes");
    await vm.guest.check(
      `ip link set eth0 promisc off allmulticast off; ip maddr del ${GROUP} dev eth0`,
    );
    await untilLeftOut(GROUP, FRAMES, "frames to the group are left out again");
  });

  test("address changes while the interface is up, and traffic follows it", async () => {
    await vm.guest.check(`ip link set eth0 address ${OTHER}`);
    assert.equal(await address("eth0"), OTHER);
    assert.equal(await leftOut(OTHER), 0, "at once");
    forgetNeighbour();
    assert.equal(await vm.pings(), 0);
    await untilLeftOut(mac, FRAMES, "frames to the former address are left out");
    await vm.guest.check("ip link set eth0 down && ip link set eth0 up");
    assert.equal(await leftOut(OTHER), 0, "after down and up");
    await vm.guest.check(`ip link set eth0 address ${mac}`);
    forgetNeighbour();
    assert.equal(await vm.pings(), 0);
  });

  test("address that the host would drop is refused with the reason on both sides", async () => {
    await vm.guest.check("ip link set eth1 up");
    const own = await address("eth1");
    const { status, output } = await vm.guest.run(`ip link set eth1 address ${OTHER}`);
    assert.notEqual(status, 0);
    assert.match(output, /not permitted/);
    assert.equal(await address("eth1"), own);
    const log = await vm.guest.check("dmesg");
    assert.match(log, new RegExp(`eth1: address ${OTHER} refused: the host drops`));
    const { lastRefusal, refused } = await guarded.status();
    assert.equal(lastRefusal, `address ${OTHER}: --anti-spoof allows ${own} only`);
    assert.equal(refused.filter, 1);
    await vm.guest.check(`ip link set eth1 address ${own}`);
  });

  const setPort = (port: string) =>
    run(process.execPath, [MAIN, "set-port", guarded.socket, port], { timeout: patience(10_000) });

  /** Interrupts for each received packet, of packets that come every millisecond. */
  async function interruptsPerPacket(settings: string): Promise<number> {
    await vm.guest.check(`ethtool -C eth1 ${settings}`);
    const counters = async () => (await guarded.status()).queues[0].counters;
    const then = await counters();
    await setPort(`source:rate=1000,count=${PACKETS}`);
    await until(patience(20_000), "the source to end", async () => {
      return (await counters()).packets - then.packets >= PACKETS;
    });
    await setPort("sink");
    const now = await counters();
    return (now.interrupts - then.interrupts) / (now.packets - then.packets);
  }

  test("ethtool -C changes how many packets share an interrupt", async (t) => {
    await vm.guest.check("ip link set eth1 up");
    const each = await interruptsPerPacket("rx-usecs 0");
    const held = await interruptsPerPacket(`rx-usecs ${HELD_US}`);
    const adaptive = await interruptsPerPacket(`rx-usecs ${HELD_US} adaptive-rx on`);
    t.diagnostic(`interrupts per packet: ${each} at once, ${held} held, ${adaptive} adaptive`);
    assert.ok(held < each / 2, `${held} held, ${each} at once`);
    assert.ok(adaptive > held / 2, `${adaptive} adaptive, ${held} held`);
    const shown = /Adaptive RX: on {2}TX: off[\s\S]*rx-usecs:\s+5000/;
    assert.match(await vm.guest.check("ethtool -c eth1"), shown);
    await vm.guest.check("ip link set eth1 down && ip link set eth1 up");
    assert.match(await vm.guest.check("ethtool -c eth1"), shown, "after down and up");
    const long = await vm.guest.run("ethtool -C eth1 rx-usecs 10001");
    assert.notEqual(long.status, 0);
    assert.match(long.output, /the longest time is 10000 microseconds/);
    const unknown = await vm.guest.run("ethtool -C eth1 rx-frames 3");
    assert.notEqual(unknown.status, 0);
    await vm.guest.check("ethtool -C eth1 rx-usecs 0 adaptive-rx off");
  });

  test("ethtool changes what the NIC can, and tells the reason when it cannot", async () => {
    await vm.guest.check("dmesg -c");
    const calls = ANSWERS.map(([words]) => `e ${words}`).join("\n");
    const output = await vm.guest.check(`e() { ethtool "$@"; echo "= $?"; }\n${calls}`);
    const answers = output.split(/= (\d+)\n?/);
    for (const [i, [words, is, answer]] of ANSWERS.entries()) {
      const [text, status] = answers.slice(2 * i, 2 * i + 2);
      assert.equal(status === "0" ? "yes" : "no", is, `ethtool ${words}: ${text}`);
      assert.match(text, answer, `ethtool ${words}`);
    }
    assert.match(await vm.guest.check("dmesg"), /the host chooses the number of queues/);
  });

  test("ethtool shows all but registers when the host does not reply", async () => {
    await vm.guest.check("sysctl -qw net.ipv6.conf.eth1.disable_ipv6=1; ip link set eth1 up");
    const shown = ["", "-i", "-c", "-g", "-l", "-k", "-S", "-T", "-P"];
    process.kill(guarded.pid, "SIGSTOP");
    try {
      const speed = "for i in $(seq 50); do cat /sys/class/net/eth1/speed; done | sort -u";
      const calls = shown.map((words) => `ethtool ${words} eth1`).join(" && ");
      const output = await vm.guest.check(`${speed} && ${calls}`);
      assert.match(output, /^\d+\n[\s\S]*losses: 0/);
    } finally {
      process.kill(guarded.pid, "SIGCONT");
    }
    assert.match(await vm.guest.check("ethtool -S eth1"), /losses: 0/);
  });

  test("ethtool shows the host's speed, and takes another one", async () => {
    assert.match(await vm.guest.check("ethtool eth0"), new RegExp(`Speed: ${SPEED}Mb/s`));
    assert.match(await vm.guest.check("ethtool -T eth0"), /software-transmit/);
    await vm.guest.check("ethtool -s eth0 speed 1000 duplex full");
    assert.equal((await vm.guest.check("cat /sys/class/net/eth0/speed")).trim(), "1000");
    const wrong = await vm.guest.run("ethtool -s eth0 autoneg on");
    assert.notEqual(wrong.status, 0);
  });
});
