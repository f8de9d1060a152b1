/**
 * Contexts as the driver registers them, contiguous or by a list of pages, for the selected queue.
 */
import type { MappedContext, mapContiguous } from "../engine/contexts.ts";
import type { Queue } from "../engine/queue.ts";
import type { Nic } from "./nic.ts";

/** Unregisters the selected queue's context and, unless `address` is 0, registers a new one. */
export function setContext(nic: Nic, address: number, map: typeof mapContiguous): void {
  const queue = nic.queues[nic.state.queueSelect];
  unregister(nic, queue);
  if (address !== 0) register(nic, queue, address, map);
  nic.link.follow();
}

function unregister(nic: Nic, queue: Queue): void {
  if (!queue.registered) return;
  queue.forget();
  // A direction is enabled only while all its queues have contexts.
  const direction = queue.direction === "rx" ? "RX" : "TX";
  if (direction === "RX" ? nic.rxEnabled : nic.txEnabled) nic.disable(direction);
}

function register(nic: Nic, queue: Queue, address: number, map: typeof mapContiguous): void {
  const { memory, state, queues, refusals } = nic;
  const context: MappedContext | string =
    memory === null
      ? "may not be used: bus mastering is off"
      : map(memory, address, queue.contextSize);
  if (typeof context === "string") {
    const where = `context of queue ${state.queueSelect} at 0x${address.toString(16)}`;
    return refusals.add("context", `${where} ${context}`);
  }
  queue.register(context);
  if (queues.every(({ registered }) => registered)) nic.step = "contexts registered";
}
