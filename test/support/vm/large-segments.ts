/**
 * Large TCP packets with any segment size, written into a TAP of their own: a kernel forwards them
 * as they are, as those of another guest.
 */
import { writeSync } from "node:fs";
import { GSO_TCP_V4, NEEDS_CSUM } from "../../../src/memory/metadata.ts";
import { close } from "../../../src/os/fd.ts";
import { openTap } from "../../../src/os/tap.ts";
import type { Netns } from "./netns.ts";

const VNET_HEADER = 10;
const ETHERNET = 14;
const IP = 20;
const TCP = 20;

export interface LargePacket {
  readonly from: string;
  readonly to: string;
  readonly payload: number;
  /** Payload of each segment. */
  readonly segment: number;
}

/** Writes `count` packets into a TAP that the namespace has, to be forwarded. */
export function writeLarge(netns: Netns, tap: string, packet: LargePacket, count: number): void {
  const mac = netns.exec(["cat", `/sys/class/net/${tap}/address`]).trim();
  const bytes = frame(Buffer.from(mac.replaceAll(":", ""), "hex"), packet);
  const { fd } = openTap({ name: tap, netns: netns.name, vnetHeader: VNET_HEADER, offloads: 0 });
  try {
    for (let i = 0; i < count; i++) writeSync(fd, bytes);
  } finally {
    close(fd);
  }
}

function frame(mac: Buffer, { from, to, payload, segment }: LargePacket): Buffer {
  const headers = ETHERNET + IP + TCP;
  const bytes = Buffer.alloc(VNET_HEADER + headers + payload);
  bytes.writeUInt8(NEEDS_CSUM, 0);
  bytes.writeUInt8(GSO_TCP_V4, 1);
  bytes.writeUInt16LE(headers, 2);
  bytes.writeUInt16LE(segment, 4);
  bytes.writeUInt16LE(ETHERNET + IP, 6);
  bytes.writeUInt16LE(16, 8);
  const ethernet = bytes.subarray(VNET_HEADER);
  mac.copy(ethernet);
  ethernet.writeUIntBE(0x02_00_00_00_00_99, 6, 6);
  ethernet.writeUInt16BE(0x0800, 12);
  const ip = ethernet.subarray(ETHERNET);
  ip.writeUInt16BE(0x4500, 0);
  ip.writeUInt16BE(IP + TCP + payload, 2);
  ip.writeUInt16BE(0x4000, 6);
  ip.writeUInt16BE(0x4006, 8);
  Buffer.from(from.split(".").map(Number)).copy(ip, 12);
  Buffer.from(to.split(".").map(Number)).copy(ip, 16);
  ip.writeUInt16BE(checksum(ip.subarray(0, IP)), 10);
  const tcp = ip.subarray(IP);
  tcp.writeUInt32BE(0x2710_2710, 0);
  // Data offset of five words, ACK.
  tcp.writeUInt16BE(0x5010, 12);
  tcp.writeUInt16BE(0xffff, 14);
  return bytes;
}

function checksum(words: Buffer): number {
  let sum = 0;
  for (let i = 0; i < words.length; i += 2) sum += words.readUInt16BE(i);
  return ~((sum & 0xffff) + (sum >>> 16)) & 0xffff;
}
