/** A guest with one bpfhv NIC on a TAP of a namespace, for the tests of a NIC's life. */
import { type Device, vfioUserDevice } from "../../../src/vm/qemu-command.ts";
import { assertNoAlarm, assertNoLeak } from "./alarms.ts";
import {
  buildModule,
  type Guest,
  type GuestOptions,
  isDebugKernel,
  Netns,
  prepareGuest,
  startGuest,
} from "./harness.ts";
import { ServedNic } from "./nic.ts";
import { until } from "./time.ts";
import { Link } from "./traffic.ts";

export const MODULE = "/modules/bpfhv.ko";
const HOST = "10.88.0.1";
const PEER = "10.88.0.2";

export class NicGuest {
  readonly guest: Guest;
  readonly nic: ServedNic;
  readonly netns: Netns;
  readonly link: Link;
  readonly #ping: string;

  private constructor(guest: Guest, nic: ServedNic, netns: Netns, link: Link, ping: string) {
    this.guest = guest;
    this.nic = nic;
    this.netns = netns;
    this.link = link;
    this.#ping = ping;
  }

  /** Boots a guest with the module, but does not load it. */
  static async start(
    options: {
      serve?: readonly string[];
      guest?: Partial<GuestOptions>;
      multiQueue?: boolean;
      /** The server is under a keeper: see `ServedNic.startKept`. */
      kept?: boolean;
      label?: string;
      /** A root port for the NIC. */
      bus?: Device;
    } = {},
  ): Promise<NicGuest> {
    const suite = options.guest?.suite;
    const parts = await prepareGuest(suite);
    const module = await modulePath(suite);
    const netns = Netns.make(options.label ?? "nic");
    let nic: ServedNic | null = null;
    try {
      const multiQueue = options.multiQueue ?? false;
      netns.addTap({ name: "tap0", address: `${HOST}/24`, multiQueue });
      const words = [`--net=tap:tap0,netns=${netns.name}`, ...(options.serve ?? [])];
      nic = await (options.kept ? ServedNic.startKept(...words) : ServedNic.start(...words));
      const guest = await startGuest({
        ...pluggedInto(options.bus, nic.socket),
        ...options.guest,
        extraFiles: { [MODULE]: module, ...options.guest?.extraFiles },
      });
      const link = new Link({ guest, netns, parts, host: HOST, peer: PEER });
      return new NicGuest(guest, nic, netns, link, parts.ping);
    } catch (error) {
      await nic?.kill();
      netns.close();
      throw error;
    }
  }

  /** Loads the module and configures its interface's address. */
  async load(parameters = ""): Promise<void> {
    await this.guest.check(`insmod ${MODULE} ${parameters}`);
    await this.configure();
  }

  async configure(): Promise<void> {
    await this.guest.check(`ip addr add ${PEER}/24 dev eth0 && ip link set eth0 up`);
  }

  /** Pings both ways. @returns the number of lost pings */
  async pings(count = 10): Promise<number> {
    const out = await this.link.pingFromGuest(count);
    const back = this.link.pingFromHost(count);
    return out.sent - out.received + (back.sent - back.received);
  }

  /** Pings the guest from the host every `intervalMs` until the returned function is called. */
  floodFromHost(intervalMs = 5): () => void {
    const words = [this.#ping, "-q", "-i", `${intervalMs / 1000}`, "-s", "200", PEER];
    const child = this.netns.spawn(words);
    child.stdout?.resume();
    child.stderr?.resume();
    child.on("error", () => {});
    return () => child.kill("SIGKILL");
  }

  /**
   * Waits after a flood until the guest has received the rest of the TAP's queue, which drops
   * packets while it is full.
   */
  async calm(): Promise<void> {
    let before = -1;
    await until(10_000, "an end of the flood", async () => {
      const { packets } = (await this.nic.status()).queues[0].counters;
      const quiet = packets === before;
      before = packets;
      return quiet;
    });
  }

  /** Ends everything. In a debug kernel it reports alarms. @returns how QEMU ended */
  async close(): Promise<{ aborted: boolean; serveCode: number | null }> {
    try {
      if (isDebugKernel) await this.#judge();
    } finally {
      // In any case: a running QEMU would keep this process alive.
      await this.guest.close();
      await this.nic.stop();
      this.netns.close();
    }
    return { aborted: (await this.guest.exit).aborted, serveCode: (await this.nic.exit).code };
  }

  async #judge(): Promise<void> {
    if (!this.guest.ended) await assertNoLeak(this.guest);
    assertNoAlarm(this.guest);
  }
}

function pluggedInto(bus: Device | undefined, socket: string): Partial<GuestOptions> {
  if (bus === undefined) return { sockets: [socket] };
  return { devices: [bus, vfioUserDevice(socket, { id: "nic0", bus: String(bus.id) })] };
}

/** Returns the path of the module for the kernel of a Debian suite. */
export async function modulePath(suite?: string): Promise<string> {
  const path = (await buildModule(undefined, suite)).find((file) => file.endsWith("/bpfhv.ko"));
  if (path === undefined) throw new Error("the module was not built");
  return path;
}
