/** One guest with one bpfhv NIC on a TAP of its own namespace: what the module's tests stand on. */
import {
  buildModule,
  type Guest,
  type GuestOptions,
  type GuestParts,
  Netns,
  prepareGuest,
  startGuest,
  until,
} from "./harness.ts";
import { ServedNic } from "./nic.ts";
import { Link } from "./traffic.ts";

export const MODULE = "/modules/bpfhv.ko";
const MAC = "52:54:00:b9:f0:10";
/** What a kernel writes when something in it went wrong. */
const ALARM = /WARNING:|BUG:|Oops|KASAN|general protection|Call Trace|UBSAN|possible .* locking/;

export interface BenchOptions {
  /** Tells several of one process apart, and picks the subnet: 1 to 99. */
  readonly index?: number;
  /** For `bpfhv serve`. */
  readonly serve?: readonly string[];
  readonly pairs?: number;
  readonly guest?: GuestOptions;
}

/** The path of a module of this tree, built where it is not in the cache. */
export async function modulePath(name: "bpfhv" | "bpfhv_chaos"): Promise<string> {
  const built = await buildModule(name === "bpfhv" ? undefined : "driver/linux/hostile");
  const path = built.find((file) => file.endsWith(`/${name}.ko`));
  if (path === undefined) throw new Error(`${name}.ko was not built`);
  return path;
}

export class Bench {
  readonly guest: Guest;
  readonly nic: ServedNic;
  readonly netns: Netns;
  readonly link: Link;
  readonly parts: GuestParts;
  readonly #address: string;

  private constructor(
    made: { guest: Guest; nic: ServedNic; netns: Netns; parts: GuestParts },
    subnet: string,
  ) {
    this.guest = made.guest;
    this.nic = made.nic;
    this.netns = made.netns;
    this.parts = made.parts;
    this.#address = `${subnet}.2`;
    this.link = new Link({ ...made, host: `${subnet}.1`, peer: this.#address });
  }

  static async start({ index = 1, serve = [], pairs = 1, guest = {} }: BenchOptions = {}) {
    const parts = await prepareGuest();
    const files = { [MODULE]: await modulePath("bpfhv"), ...guest.extraFiles };
    const subnet = `10.66.${index}`;
    const netns = Netns.make("module");
    try {
      netns.addTap({ name: "tap0", address: `${subnet}.1/24`, multiQueue: pairs > 1 });
      const port = ["--net", `tap:tap0,netns=${netns.name}`, "--mac", MAC];
      const nic = await ServedNic.start(...port, "--queues", `${pairs}`, ...serve);
      try {
        const made = await startGuest({ ...guest, sockets: [nic.socket], extraFiles: files });
        return new Bench({ guest: made, nic, netns, parts }, subnet);
      } catch (error) {
        await nic.kill();
        throw error;
      }
    } catch (error) {
      netns.close();
      throw error;
    }
  }

  /** Loads the module and brings the interface up. */
  async load(parameters = ""): Promise<void> {
    await this.guest.check(`insmod ${MODULE} ${parameters}`);
    await this.up();
  }

  async up(): Promise<void> {
    await this.guest.check(`ip addr replace ${this.#address}/24 dev eth0 && ip link set eth0 up`);
  }

  get address(): string {
    return this.#address;
  }

  /** Lost pings of ten, both ways; the first one, which may wait for ARP, is not counted. */
  async lostPings(): Promise<number> {
    await this.link.pingFromGuest(2);
    const there = await this.link.pingFromGuest(10);
    const here = this.link.pingFromHost(10);
    return there.sent - there.received + here.sent - here.received;
  }

  /** A flood from the host, until the bench is closed or the result is called. */
  flood(): () => void {
    const child = this.netns.spawn([this.parts.ping, "-f", "-q", this.#address]);
    child.stdout?.resume();
    child.stderr?.resume();
    return () => void child.kill("SIGKILL");
  }

  /** Lines of the guest's kernel log in which it complains. */
  async alarms(): Promise<string[]> {
    return (await this.guest.check("dmesg")).split("\n").filter((line) => ALARM.test(line));
  }

  /** A counter of `ethtool -S`. */
  async counter(name: string): Promise<number> {
    const { output } = await this.guest.run("ethtool -S eth0");
    return Number(new RegExp(`\\b${name}: (\\d+)`).exec(output)?.[1] ?? Number.NaN);
  }

  async carrier(): Promise<boolean> {
    return (await this.guest.run("cat /sys/class/net/eth0/carrier")).output.trim() === "1";
  }

  waitForCarrier(wanted: boolean): Promise<void> {
    return until(10_000, `carrier ${wanted}`, async () => (await this.carrier()) === wanted).then(() => {});
  }

  async close(): Promise<{ aborted: boolean; code: number | null }> {
    const { aborted } = await this.guest.close();
    const { code } = await this.nic.stop();
    this.netns.close();
    return { aborted, code };
  }
}
