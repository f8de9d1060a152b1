/** Answers that describe the server and its device. Each function returns the payload's bytes. */
import {
  DEVICE_FLAG,
  DEVICE_INFO,
  HEADER,
  IRQ,
  IRQ_FLAG,
  IRQ_INFO,
  MAX_DATA,
  MAX_MESSAGE_FDS,
  REGION,
  REGION_FLAG,
  REGION_INFO,
  VERSION,
} from "./protocol.ts";
import type { ReplyWriter } from "./replies.ts";

/** Announced to the client; QEMU reserves 214 bytes for the whole answer. */
const LIMITS = { max_msg_fds: MAX_MESSAGE_FDS, max_data_xfer_size: MAX_DATA };
const CAPABILITIES = `${JSON.stringify({ capabilities: LIMITS })}\0`;
const NO_CAPABILITIES = "{}\0";

/** @param room bytes for the text: a client reserves as much as its request had */
export function describeVersion({ data, bytes }: ReplyWriter, room: number): number {
  const text = [CAPABILITIES, NO_CAPABILITIES].find((json) => json.length <= room) ?? "";
  data.setUint32(HEADER.SIZE, 0, true);
  bytes.set(Buffer.from(text), HEADER.SIZE + VERSION.json);
  return VERSION.SIZE + text.length;
}

export function describeDevice({ data }: ReplyWriter): number {
  put(data, DEVICE_INFO.argsz, DEVICE_INFO.SIZE);
  put(data, DEVICE_INFO.flags, DEVICE_FLAG.reset | DEVICE_FLAG.pci);
  put(data, DEVICE_INFO.regions, REGION.COUNT);
  put(data, DEVICE_INFO.irqs, IRQ.COUNT);
  return DEVICE_INFO.SIZE;
}

/** @param size bytes; 0: the device lacks this region */
export function describeRegion({ data }: ReplyWriter, index: number, size: number): number {
  put(data, REGION_INFO.argsz, REGION_INFO.SIZE);
  // Without the flag for mapping: one region that can be mapped turns posted writes off for all.
  put(data, REGION_INFO.flags, size === 0 ? 0 : REGION_FLAG.read | REGION_FLAG.write);
  put(data, REGION_INFO.index, index);
  put(data, REGION_INFO.capOffset, 0);
  put(data, REGION_INFO.size, size);
  put(data, REGION_INFO.size + 4, 0);
  put(data, REGION_INFO.offset, 0);
  put(data, REGION_INFO.offset + 4, 0);
  return REGION_INFO.SIZE;
}

export function describeIrq({ data }: ReplyWriter, index: number, count: number): number {
  put(data, IRQ_INFO.argsz, IRQ_INFO.SIZE);
  put(data, IRQ_INFO.flags, count === 0 ? 0 : IRQ_FLAG.eventfd);
  put(data, IRQ_INFO.index, index);
  put(data, IRQ_INFO.count, count);
  return IRQ_INFO.SIZE;
}

function put(data: DataView, offset: number, value: number): void {
  data.setUint32(HEADER.SIZE + offset, value, true);
}
