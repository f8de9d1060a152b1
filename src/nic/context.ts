/**
 * Contexts as the driver registers them, contiguous or by a list of pages, for the selected queue.
 */
import type { MappedContext, mapContiguous } from "../engine/contexts.ts";
import type { Queue } from "../engine/queue.ts";
import type { Nic } from "./nic.ts";

/** Unregisters the selected queue's context and, unless `address` is 0, registers a new one. */
export function setContext(nic: Nic, address: number, map: typeof mapContiguous): void {
  const queue = nic.queues[nic.state.queueSelect];
  if (nic.upgrade.view !== 0) return setNext(nic, queue, address, map);
  unregister(nic, queue);
  if (address !== 0) register(nic, queue, address, map);
  nic.link.follow();
}

function unregister(nic: Nic, queue: Queue): void {
  if (!queue.registered) return;
  const direction = queue.direction === "rx" ? "RX" : "TX";
  // What the guest has agreed to is completed before: contexts of two sets would be mixed.
  if (nic.upgrade.agreed) nic.disable(direction);
  queue.forget();
  // A direction is enabled only while all its queues have contexts.
  if (direction === "RX" ? nic.rxEnabled : nic.txEnabled) nic.disable(direction);
}

/** Contexts of the staged set, beside those in use. */
function setNext(nic: Nic, queue: Queue, address: number, map: typeof mapContiguous): void {
  const { upgrade, wanted, refusals } = nic;
  if (!upgrade.open || wanted === null) {
    return refusals.add("context", `context of queue ${queue.name} for a set that is not staged`);
  }
  queue.forgetNext();
  if (address === 0) return;
  const { format } = wanted;
  const bufs = queue.direction === "rx" ? wanted.rxBufs : wanted.txBufs;
  const context = mapFor(nic, address, format.contextSize(bufs), map);
  if (context !== null) queue.registerNext(context, format, bufs);
}

function register(nic: Nic, queue: Queue, address: number, map: typeof mapContiguous): void {
  const context = mapFor(nic, address, queue.contextSize, map);
  if (context === null) return;
  queue.register(context);
  nic.setRead = true;
  if (nic.queues.every(({ registered }) => registered)) nic.step = "contexts registered";
}

/** @returns null if the refusal was counted */
function mapFor(
  { memory, state, refusals }: Nic,
  address: number,
  size: number,
  map: typeof mapContiguous,
): MappedContext | null {
  const context =
    memory === null ? "may not be used: bus mastering is off" : map(memory, address, size);
  if (typeof context !== "string") return context;
  const where = `context of queue ${state.queueSelect} at 0x${address.toString(16)}`;
  refusals.add("context", `${where} ${context}`);
  return null;
}
