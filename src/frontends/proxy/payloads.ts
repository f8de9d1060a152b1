/** Payloads of the protocol: read and checked, and made. They carry no state. */
import { validQueueBufs } from "../../abi/index.ts";
import type { RingFormat } from "../../devices/format.ts";
import type { RegionRequest } from "../../memory/regions.ts";
import type { Parameters } from "./program-server.ts";
import { CONTEXT_SIZES, getU64, MEMORY_MAP, PARAMETERS, putU64, REGION } from "./protocol.ts";

/** @returns the ring sizes that a guest asks for; a string says why it cannot have them */
export function parametersOf(payload: DataView, device: RingFormat): Parameters | string {
  const at = (offset: number): number => payload.getUint32(offset, true);
  const [rxQueues, txQueues] = [at(PARAMETERS.rxQueues), at(PARAMETERS.txQueues)];
  if (rxQueues !== 1 || txQueues !== 1) {
    return `${rxQueues} receive and ${txQueues} transmit queues: one each is served`;
  }
  const [rxBufs, txBufs] = [at(PARAMETERS.rxBufs), at(PARAMETERS.txBufs)];
  if (!validQueueBufs(rxBufs) || !validQueueBufs(txBufs)) {
    return `${rxBufs} and ${txBufs} buffers: powers of two from 16 to 8192`;
  }
  return device.sizeProblem?.(rxBufs) ?? device.sizeProblem?.(txBufs) ?? { rxBufs, txBufs };
}

export function features(offered: number): Uint8Array {
  const answer = new Uint8Array(8);
  putU64(new DataView(answer.buffer), 0, offered);
  return answer;
}

export function contextSizes(rx: number, tx: number): Uint8Array {
  const answer = new Uint8Array(8);
  const view = new DataView(answer.buffer);
  view.setUint32(CONTEXT_SIZES.rx, rx, true);
  view.setUint32(CONTEXT_SIZES.tx, tx, true);
  return answer;
}

/** The regions of a memory table, as many as there are descriptors. */
export function regionsOf(payload: DataView, count: number): RegionRequest[] {
  return Array.from({ length: count }, (_, i) => {
    const at = MEMORY_MAP.regions + i * MEMORY_MAP.REGION_SIZE;
    return {
      address: getU64(payload, at + REGION.address),
      size: getU64(payload, at + REGION.size),
      offset: getU64(payload, at + REGION.offset),
      readable: true,
      writable: true,
    };
  });
}
