/**
 * TAP interfaces: one descriptor transfers whole Ethernet
 * frames, after an optional virtio-net header.
 */
import { check, EBUSY, EINVAL, ENAMETOOLONG, ENODEV, EPERM, errnoName, OsError } from "./errors.ts";
import * as libc from "./libc.ts";
import { inNetns } from "./netns.ts";
import {
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_UFO,
  TUN_F_USO,
} from "./tun-flags.ts";

export { readv, writev } from "./vector-io.ts";

const O_RDWR_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000;
const TUNSETIFF = 0x400454ca;
const TUNGETIFF = 0x800454d2;
const TUNSETOFFLOAD = 0x400454d0;
const TUNGETVNETHDRSZ = 0x800454d7;
const TUNSETVNETHDRSZ = 0x400454d8;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const IFF_UP = 0x0001;
const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** IFNAMSIZ is 16 including the NUL. */
const MAX_NAME = 15;
/** struct ifreq: name (16), then the flags; 40 bytes in all. */
const IFREQ_FLAGS = 16;
const IFREQ_SIZE = 40;

export interface TapOptions {
  /** Name of the interface, 1 to 15 bytes. */
  readonly name: string;
  /** Length of the virtio-net header before every frame: none, the short or the long form. */
  readonly vnetHeader: 0 | 10 | 12;
  /** Requested TUN_F_* bits. They need a header. */
  readonly offloads: number;
  readonly multiQueue?: boolean;
  /** Network namespace of the interface; default: the current one. */
  readonly netns?: string;
  /**
   * Create the interface if it is missing, and bring it up. It then
   * exists until the descriptor is closed.
   */
  readonly create?: boolean;
}

export interface Tap {
  /** Non-blocking. Closing it detaches from the interface. */
  readonly fd: number;
  readonly name: string;
  readonly vnetHeader: 0 | 10 | 12;
  /** The TUN_F_* bits that the kernel accepted. */
  readonly offloads: number;
}

/** Opens a TAP interface, or creates it if `create` is set. @throws OsError that says what to do */
export function openTap(options: TapOptions): Tap {
  checkOptions(options);
  const { netns } = options;
  const fd = netns === undefined ? attach(options) : inNetns(netns, () => attach(options));
  try {
    if (options.vnetHeader !== 0) setHeaderSize(fd, options);
    const offloads = setOffloads(fd, options.offloads);
    return { fd, name: options.name, vnetHeader: options.vnetHeader, offloads };
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/**
 * Takes an open TAP of another process, whose packets stay in it. The descriptor stays the caller's
 * if it is refused.
 * @throws OsError if it is not this interface, or frames have other headers
 */
export function adoptTap(fd: number, { name, vnetHeader }: TapOptions): Tap {
  const object = `tap ${name}`;
  check(libc.ioctl(fd, TUNGETIFF, libc.STRUCT_ADDRESS), "ioctl(TUNGETIFF)", object, NOT_TAP);
  const bytes = new Uint8Array(libc.scratch.buffer, libc.STRUCT_OFFSET, IFREQ_FLAGS);
  const found = Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString();
  const flags = libc.scratch.getUint16(libc.STRUCT_OFFSET + IFREQ_FLAGS, true);
  const header = (flags & IFF_VNET_HDR) === 0 ? 0 : headerSize(fd, name);
  if (found === name && (flags & IFF_TAP) !== 0 && header === vnetHeader) {
    return { fd, name, vnetHeader, offloads: 0 };
  }
  const why = `the descriptor is of "${found}", whose headers have ${header} bytes`;
  throw new OsError("ioctl(TUNGETIFF)", object, EINVAL, NOT_TAP, why);
}

function headerSize(fd: number, name: string): number {
  const result = libc.ioctl(fd, TUNGETVNETHDRSZ, libc.STRUCT_ADDRESS);
  check(result, "ioctl(TUNGETVNETHDRSZ)", `tap ${name}`);
  return libc.scratch.getInt32(libc.STRUCT_OFFSET, true);
}

const NOT_TAP = "use the descriptor that the other server had";

function checkOptions({ name, vnetHeader, offloads }: TapOptions): void {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0 || bytes > MAX_NAME || /[/\s\0%:]/.test(name) || name === "." || name === "..") {
    const why = "not an interface name";
    throw new OsError(
      "open",
      `tap "${name}"`,
      bytes > MAX_NAME ? ENAMETOOLONG : EINVAL,
      `use 1 to ${MAX_NAME} bytes without spaces, '/', ':' or '%'`,
      why,
    );
  }
  if (vnetHeader === 0 && offloads !== 0) {
    const hint = "ask for a header of 10 or 12 bytes, or for no offloads";
    throw new OsError("open", `tap ${name}`, EINVAL, hint, "offloads need a virtio-net header");
  }
}

function attach(options: TapOptions): number {
  const { name } = options;
  const missing = libc.ifNameToIndex(name) === 0;
  if (!options.create && missing) {
    const where = options.netns === undefined ? "" : ` in namespace ${options.netns}`;
    const hint = `make it with 'ip tuntap add dev ${name} mode tap'`;
    throw new OsError("open", `tap ${name}`, ENODEV, hint, `no such interface${where}`);
  }
  const fd = check(
    libc.open("/dev/net/tun", O_RDWR_NONBLOCK_CLOEXEC, 0),
    "open",
    "/dev/net/tun",
    "load the tun module (modprobe tun) and make the device accessible",
  );
  if (libc.ioctl(fd, TUNSETIFF, interfaceRequest(options)) === 0) {
    // An interface that exists keeps its state: its owner chose it.
    // One that is down refuses every packet.
    if (missing) bringUp(fd, options);
    return fd;
  }
  const number = libc.errno();
  libc.close(fd);
  throw new OsError("ioctl(TUNSETIFF)", `tap ${name}`, number, attachHint(number, options));
}

/** Sets IFF_UP (netdevice(7)). On failure it closes `fd`, and the interface is removed with it. */
function bringUp(fd: number, options: TapOptions): void {
  const done = setFlag(options, IFF_UP);
  if (done) return;
  const number = libc.errno();
  libc.close(fd);
  const hint = "run with CAP_NET_ADMIN, or make the interface before";
  throw new OsError("ioctl(SIOCSIFFLAGS)", `tap ${options.name}`, number, hint);
}

function setFlag(options: TapOptions, flag: number): boolean {
  const socket = libc.socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
  if (socket < 0) return false;
  const request = interfaceRequest(options);
  let done = libc.ioctl(socket, SIOCGIFFLAGS, request) === 0;
  if (done) {
    const at = libc.STRUCT_OFFSET + IFREQ_FLAGS;
    libc.scratch.setUint16(at, libc.scratch.getUint16(at, true) | flag, true);
    done = libc.ioctl(socket, SIOCSIFFLAGS, request) === 0;
  }
  libc.close(socket);
  return done;
}

/** Builds struct ifreq in the scratch page and returns its address. */
function interfaceRequest({ name, vnetHeader, multiQueue }: TapOptions): number {
  const bytes = Buffer.from(name);
  for (let i = 0; i < IFREQ_SIZE; i++) libc.scratch.setUint8(libc.STRUCT_OFFSET + i, bytes[i] ?? 0);
  const flags =
    IFF_TAP | IFF_NO_PI | (vnetHeader ? IFF_VNET_HDR : 0) | (multiQueue ? IFF_MULTI_QUEUE : 0);
  libc.scratch.setUint16(libc.STRUCT_OFFSET + IFREQ_FLAGS, flags, true);
  return libc.STRUCT_ADDRESS;
}

function attachHint(number: number, { name, multiQueue }: TapOptions): string {
  if (number === EPERM) {
    return `run with CAP_NET_ADMIN, or create it as root: ip tuntap add dev ${name} mode tap user $USER`;
  }
  if (number === EBUSY) return "another process has it open: stop that one or use another tap";
  if (number === EINVAL) {
    const kind = multiQueue ? "with" : "without";
    return `it must be a TAP ${kind} multi_queue, not another type of interface`;
  }
  return errnoName(number) === "ENODEV" ? "load the tun module (modprobe tun)" : "";
}

function setHeaderSize(fd: number, { name, vnetHeader }: TapOptions): void {
  libc.scratch.setInt32(libc.STRUCT_OFFSET, vnetHeader, true);
  check(
    libc.ioctl(fd, TUNSETVNETHDRSZ, libc.STRUCT_ADDRESS),
    "ioctl(TUNSETVNETHDRSZ)",
    `tap ${name}`,
  );
}

/**
 * Groups that the kernel accepts or refuses as a whole. if_tun.h says which need an earlier one.
 */
const OFFLOAD_GROUPS = [
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
  TUN_F_UFO,
  TUN_F_USO,
] as const;

/** Sets those of the requested bits that the kernel supports, and returns them. */
function setOffloads(fd: number, wanted: number): number {
  if (trySetOffloads(fd, wanted)) return wanted;
  let taken = 0;
  for (const group of OFFLOAD_GROUPS) {
    if ((wanted & group) === group && trySetOffloads(fd, taken | group)) taken |= group;
  }
  // A refused last try leaves the bits before it: set what is reported.
  check(libc.ioctl(fd, TUNSETOFFLOAD, taken), "ioctl(TUNSETOFFLOAD)", `0x${taken.toString(16)}`);
  return taken;
}

function trySetOffloads(fd: number, bits: number): boolean {
  return libc.ioctl(fd, TUNSETOFFLOAD, bits) === 0;
}

/** Changes the offloads of an open TAP after a guest's negotiation; returns the accepted bits. */
export function setTapOffloads(tap: Tap, wanted: number): number {
  return setOffloads(tap.fd, tap.vnetHeader === 0 ? 0 : wanted);
}
