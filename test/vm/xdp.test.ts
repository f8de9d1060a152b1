/** XDP in the guest: programs in the driver, redirects between two NICs, large MTUs. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { vfioUserDevice } from "../../src/vm/qemu-command.ts";
import { transferChecked } from "../support/vm/checked-tcp.ts";
import { Netns, prepareGuest } from "../support/vm/harness.ts";
import { ServedNic } from "../support/vm/nic.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";
import { patience, until, within } from "../support/vm/time.ts";
import { buildXdpProgram, XDP_PROGRAM } from "../support/vm/xdp.ts";
import { MOUNT_BPF, withoutXdpTools, XDP_TOOLS, xdpTools } from "../support/vm/xdp-tools.ts";

const skip = await withoutVm();
const JUMBO = 9000;
/** Attached and detached in a loop. */
const ROUNDS = isFull ? 100 : 10;
const PINGS = 15 * ROUNDS;

/** Sends random bytes to a server at the other end of the wire, which returns them. */
const ECHO = `require("node:net").createServer((s) => s.pipe(s)).listen(5400, () => console.log("ready"))`;
const CHECK = `
const sent = require("node:crypto").randomBytes(2 << 20);
const got = [];
const socket = require("node:net").connect(5400, "10.88.0.3", () => socket.end(sent));
socket.on("data", (chunk) => got.push(chunk));
socket.on("close", () => console.log(Buffer.concat(got).equals(sent) ? "whole" : "damaged"));
`;

/** Sends that many datagrams to the port and address of its arguments. */
const DATAGRAMS = 50;
const SEND = `
const socket = require("node:dgram").createSocket("udp4");
const [, port, address] = process.argv;
let left = ${DATAGRAMS};
const next = () => (left-- > 0 ? socket.send("datagram", Number(port), address, next) : socket.close());
next();
`;

describe("XDP in the guest", { skip, timeout: patience(isFull ? 400_000 : 180_000) }, () => {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-xdp-"));
  let vm: NicGuest;
  let far: Netns;
  let second: ServedNic;

  before(async () => {
    const serve = ["--device", "sring_gso", "--mtu", `${JUMBO}`];
    far = Netns.make("xdp-far");
    far.addTap({ name: "tap1", address: "10.88.0.3/24", mtu: JUMBO });
    second = await ServedNic.start(`--net=tap:tap1,netns=${far.name}`, ...serve);
    vm = await NicGuest.start({
      label: "xdp",
      serve,
      guest: {
        smp: 2,
        extraFiles: { [XDP_PROGRAM]: buildXdpProgram(folder), ...xdpTools() },
        devices: [vfioUserDevice(second.socket, { id: "far" })],
      },
    });
    vm.netns.exec(["ip", "link", "set", "tap0", "mtu", `${JUMBO}`]);
    await vm.load();
  });

  after(async () => {
    rmSync(folder, { recursive: true, force: true });
    const end = await vm?.close();
    await second?.stop();
    far?.close();
    assert.deepEqual(end, { aborted: false, serveCode: 0 });
  });

  const attach = (program: string, dev = "eth0") =>
    vm.guest.check(`${XDP_PROGRAM} ${dev} ${program} 2>&1`);
  const refusal = async (program: string): Promise<string> => {
    const { status, output } = await vm.guest.run(`${XDP_PROGRAM} eth0 ${program} 2>&1`);
    assert.equal(status, 1);
    return output;
  };
  const counter = async (name: string, dev = "eth0"): Promise<number> => {
    const output = await vm.guest.check(`ethtool -S ${dev}`);
    return Number(new RegExp(`\\b${name}: (\\d+)`).exec(output)?.[1]);
  };
  /** Returns how much a counter grows meanwhile. */
  const growth = async (name: string, action: () => Promise<unknown> | unknown) => {
    const start = await counter(name);
    await action();
    return (await counter(name)) - start;
  };
  const linkUps = () => vm.guest.check("cat /sys/class/net/eth0/carrier_up_count");

  test("refuses a program, and says what to do, while the host merges packets", async () => {
    assert.match(await refusal("pass"), /the host merges packets: .*rx-gro-hw off/);
    await vm.guest.check("ethtool -K eth0 rx-gro-hw off; ethtool -K eth1 rx-gro-hw off");
    assert.equal(await vm.pings(3), 0);
  });

  test("passes packets, with headroom and metadata, also those that came just before", async () => {
    const ups = await linkUps();
    await attach("room");
    assert.ok((await growth("rx0_xdp_pass", () => vm.pings(10))) >= 20);
    await transferChecked(vm, { upMiB: 2, downMiB: 2 });
    assert.equal(await counter("rx0_xdp_errors"), 0);
    assert.equal(await linkUps(), ups);
    assert.doesNotMatch(
      await vm.guest.check("ethtool -K eth0 rx-gro-hw on; ethtool -k eth0"),
      /rx-gro-hw: on/,
    );
  });

  test("drops packets, and passes the next ones once detached", async () => {
    await attach("drop");
    const dropped = await growth("rx0_xdp_drop", async () => {
      assert.notEqual((await vm.guest.run("ping -q -c 3 -i 0.1 -W 1 10.88.0.1")).status, 0);
    });
    assert.ok(dropped >= 3, `${dropped} dropped`);
    await attach("off");
    assert.equal(await vm.pings(5), 0);
  });

  test("sends packets back", async () => {
    await attach("reflect");
    const sent = await growth("rx0_xdp_tx", () => {
      const { sent, received } = vm.link.pingFromHost(100);
      assert.equal(received, sent);
    });
    assert.ok(sent >= 100, `${sent} sent back`);
    assert.equal(await counter("rx0_xdp_errors"), 0);
  });

  test("loses nothing while programs are attached and detached", async () => {
    const change = `${XDP_PROGRAM} eth0 room && ${XDP_PROGRAM} eth0 off || exit 1`;
    const loop = `for i in $(seq ${ROUNDS}); do ${change}; done`;
    const output = await vm.guest.check(
      `ping -n -q -i 0.01 -c ${PINGS} 10.88.0.1 >/tmp/ping.txt 2>&1 & ${loop}; wait; cat /tmp/ping.txt`,
      { timeoutMs: isFull ? 240_000 : 60_000 },
    );
    assert.match(output, new RegExp(`${PINGS} (packets )?received`));
    await vm.guest.check(`(${loop}; echo done) >/tmp/loop.txt 2>&1 &`);
    await transferChecked(vm, { upMiB: 4, downMiB: 4 });
    await until(30_000, "the last change", async () => {
      return (await vm.guest.check("cat /tmp/loop.txt")) === "done\n";
    });
    const errors = /[rt]x0_(xdp_)?errors: .*/g;
    const stats = await vm.guest.check("ethtool -S eth0");
    assert.deepEqual(
      new Set(stats.match(errors)?.map((line) => line.split(": ")[1])),
      new Set(["0"]),
    );
  });

  describe("takes programs of xdp-tools", { skip: isFull ? withoutXdpTools() : "long" }, () => {
    const tool = (words: string) => vm.guest.check(`${XDP_TOOLS} ${words} 2>&1`);
    /** Runs xdp-bench meanwhile. @returns what it counted */
    const benched = async (words: string, action: () => Promise<void>): Promise<string> => {
      const start = `${XDP_TOOLS} xdp-bench ${words} >/tmp/bench.txt 2>&1 &`;
      await vm.guest.check(`${start} echo $! >/tmp/bench.pid`);
      await until(30_000, "a program", async () => {
        return /xdp/.test(await vm.guest.check("ip -o link show eth0"));
      });
      await action();
      return vm.guest.check(`sleep 1.2; kill -INT $(cat /tmp/bench.pid); wait; cat /tmp/bench.txt`);
    };
    const datagrams = (port: number): void => {
      vm.netns.exec([process.execPath, "-e", SEND, `${port}`, vm.link.peer]);
    };

    before(() => vm.guest.check(`${XDP_PROGRAM} eth0 off; ${MOUNT_BPF}; ip link set eth1 up`));

    test("xdp-filter drops by port, loaded and unloaded in a loop without a loss", async () => {
      const load = `${XDP_TOOLS} xdp-filter load --mode native eth0`;
      const change = `${load} && ${XDP_TOOLS} xdp-filter unload eth0 || exit 1`;
      const output = await vm.guest.check(
        `ping -n -q -i 0.01 -c 300 10.88.0.1 >/tmp/ping.txt 2>&1 &
         for i in 1 2; do ${change}; done 2>&1; wait; cat /tmp/ping.txt`,
        { timeoutMs: patience(60_000) },
      );
      assert.match(output, /300 (packets )?received/);
      await tool("xdp-filter load --mode native eth0");
      await tool("xdp-filter port --proto udp 7000");
      assert.equal(await growth("rx0_xdp_drop", () => datagrams(7000)), DATAGRAMS);
      assert.equal(await growth("rx0_xdp_drop", () => datagrams(7001)), 0);
      assert.equal(await vm.pings(3), 0);
      await tool("xdp-filter unload eth0");
    });

    test("xdp-bench counts what it drops, sends back and redirects", async () => {
      for (const [words, name, dev] of [
        ["drop -i 1 eth0", "rx0_xdp_drop", "eth0"],
        ["tx -i 1 eth0", "rx0_xdp_tx", "eth0"],
        ["redirect -i 1 eth0 eth1", "rx0_xdp_redirect", "eth0"],
      ] as const) {
        const start = await counter(name, dev);
        const output = await benched(words, async () => datagrams(7000));
        const counted = (await counter(name, dev)) - start;
        assert.ok(counted >= DATAGRAMS, `${words}: ${counted} of ${DATAGRAMS}\n${output}`);
      }
      assert.equal(await vm.pings(3), 0);
    });
  });

  test("stays attached when the NIC goes down and up, is reset, and negotiates features again", async () => {
    await attach("room");
    await vm.guest.check("ip link set eth0 down; ip link set eth0 up");
    assert.equal(await vm.pings(3), 0);
    await vm.guest.check("ethtool -K eth0 rx off; ethtool -K eth0 rx on");
    // A reset of the device itself, which loses all that was negotiated.
    const recovered = await growth("recoveries", async () => {
      await vm.guest.check("echo 1 >/sys/class/net/eth0/device/reset");
      await until(10_000, "the NIC after a reset", async () => {
        return (await vm.guest.run("ping -q -c 1 -W 1 10.88.0.1")).status === 0;
      });
    });
    assert.equal(recovered, 1);
    assert.ok((await growth("rx0_xdp_pass", () => vm.pings(5))) >= 10);
    await transferChecked(vm, { upMiB: 1, downMiB: 1 });
  });

  test("sees packets of several buffers if the program says so, else refuses the MTU", async () => {
    const raise = `ip link set eth0 mtu ${JUMBO}`;
    assert.notEqual((await vm.guest.run(raise)).status, 0);
    await attach("off");
    await vm.guest.check(raise);
    assert.match(await refusal("pass"), /packets of this MTU take several buffers/);
    await attach("room frags");
    const whole = `ping -q -M do -s ${JUMBO - 28} -c 5 -i 0.05 -W 5 10.88.0.1`;
    assert.ok((await growth("rx0_xdp_pass", () => vm.guest.check(whole))) >= 5);
    await transferChecked(vm, { upMiB: 4, downMiB: 4 });
    await attach("off");
    await attach("reflect frags");
    // The echo's checksum is of the whole packet, and ping compares the data.
    const { ping } = await prepareGuest();
    const words = [ping, "-q", "-M", "do", "-s", `${JUMBO - 28}`, "-c", "20", "-i", "0.02"];
    const output = vm.netns.exec([...words, "-W", "5", vm.link.peer]);
    assert.match(output, /20 (packets )?received/);
    await attach("off");
  });

  test("redirects packets to and from another NIC, large ones too, every byte whole", async () => {
    const promiscuous = ["eth0", "eth1"].map(
      (dev) => `ip link set ${dev} mtu ${JUMBO} promisc on up`,
    );
    await vm.guest.check(promiscuous.join("; "));
    await attach("redirect:eth1 frags");
    await attach("redirect:eth0 frags", "eth1");
    const echo = far.spawn([process.execPath, "-e", ECHO]);
    const line = (child: typeof echo): Promise<string> =>
      within(
        patience(60_000),
        "a line",
        new Promise((resolve) => child.stdout?.once("data", (data) => resolve(`${data}`))),
      );
    assert.equal(await line(echo), "ready\n");
    assert.equal(await line(vm.netns.spawn([process.execPath, "-e", CHECK])), "whole\n");
    echo.kill("SIGKILL");
    for (const dev of ["eth0", "eth1"]) {
      assert.ok((await counter("rx0_xdp_redirect", dev)) > 200);
      assert.ok((await counter("tx0_xdp_xmit", dev)) > 200);
      assert.equal(await counter("rx0_errors", dev), 0);
    }
  });

  test("leaves nothing attached when the module is removed", async () => {
    await vm.guest.check("rmmod bpfhv", { timeoutMs: 30_000 });
    await vm.load();
    assert.equal(await vm.pings(3), 0);
  });
});
