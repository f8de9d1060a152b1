/** SET_IRQS: which eventfd belongs to which vector, masks, and triggers by the client. */

import { OK } from "../memory/regions.ts";
import { EINVAL, ENOTSUP } from "../os/errors.ts";
import { isEventFd } from "../os/eventfd.ts";
import type { MsixVectors } from "./msix.ts";
import { IRQ, IRQ_SET, SET_IRQS } from "./protocol.ts";

const DATA = IRQ_SET.dataNone | IRQ_SET.dataBool | IRQ_SET.dataEventfd;
const ACTION = IRQ_SET.mask | IRQ_SET.unmask | IRQ_SET.trigger;

/** @returns true if exactly one bit is set */
function single(bits: number): boolean {
  return bits !== 0 && (bits & (bits - 1)) === 0;
}

/**
 * Executes the request at `at`. After OK the vectors own the descriptors, otherwise the caller
 * does.
 * @returns OK or an errno value; a refused request changes nothing
 */
export function handleSetIrqs(
  vectors: MsixVectors,
  request: DataView,
  at: number,
  payload: number,
  fds: readonly number[],
): number {
  if (payload < SET_IRQS.SIZE) return EINVAL;
  const flags = request.getUint32(at + SET_IRQS.flags, true);
  const index = request.getUint32(at + SET_IRQS.index, true);
  const start = request.getUint32(at + SET_IRQS.start, true);
  const count = request.getUint32(at + SET_IRQS.count, true);
  const data = flags & DATA;
  const action = flags & ACTION;
  if (!single(data) || !single(action) || flags & ~(DATA | ACTION)) return EINVAL;
  if (payload !== SET_IRQS.SIZE + (data === IRQ_SET.dataBool ? count : 0)) return EINVAL;
  if (fds.length > 0 && data !== IRQ_SET.dataEventfd) return EINVAL;
  if (count === 0) return forgetAll(vectors, index, flags);
  if (index !== vectors.irqIndex || start + count > vectors.count) return EINVAL;
  if (data === IRQ_SET.dataEventfd) {
    return action === IRQ_SET.trigger ? setEventFds(vectors, start, count, fds) : ENOTSUP;
  }
  for (let i = 0; i < count; i++) {
    const chosen = data === IRQ_SET.dataNone || request.getUint8(at + SET_IRQS.SIZE + i) !== 0;
    if (chosen) act(vectors, start + i, action);
  }
  return OK;
}

/**
 * "No data, trigger, no vectors" disables an interrupt kind. Kinds that the device lacks are
 * disabled already.
 */
function forgetAll(vectors: MsixVectors, index: number, flags: number): number {
  if (flags !== (IRQ_SET.dataNone | IRQ_SET.trigger) || index >= IRQ.COUNT) return EINVAL;
  if (index === vectors.irqIndex) vectors.clear();
  return OK;
}

function setEventFds(
  vectors: MsixVectors,
  start: number,
  count: number,
  fds: readonly number[],
): number {
  if (fds.length !== 0 && fds.length !== count) return EINVAL;
  if (!fds.every(isEventFd)) return EINVAL;
  for (let i = 0; i < count; i++) {
    const fd = fds[i];
    if (fd === undefined) vectors.detach(start + i);
    else vectors.attach(start + i, fd);
  }
  return OK;
}

function act(vectors: MsixVectors, vector: number, action: number): void {
  if (action === IRQ_SET.mask) vectors.mask(vector);
  else if (action === IRQ_SET.unmask) vectors.unmask(vector);
  else vectors.fire(vector);
}
