/** The thread of a guest and its NIC under load: one goes on, another one tries sets first. */
import { parentPort } from "node:worker_threads";
import { loadFormat } from "../../devices/registry.ts";
import { Machine } from "../../suite/machine.ts";
import type { Answered, Counts, Order, Shipped } from "./messages.ts";

/** The load works half of the time, so that a compiler beside it gets on. */
const WORK_MS = 3;
const REST_MS = 3;
/** A guest without a step for so long takes the set no more. */
const SWAP_MS = 5000;
/** Small: a module's mistakes are found by few packets. */
const MACHINE_MIB = 256;
const TRY_MIB = 16;

const port = parentPort!;
let machine: Machine | undefined;
/** Ends the replacement that goes on. */
let taken: ((error?: Error) => void) | undefined;
let stopped = false;

function work(): void {
  if (machine === undefined || stopped) return;
  const until = performance.now() + WORK_MS;
  do {
    machine.burst();
    if (taken !== undefined) step(machine, taken);
  } while (performance.now() < until);
  setTimeout(work, REST_MS);
}

function step(running: Machine, over: (error?: Error) => void): void {
  try {
    if (!running.step()) over();
  } catch (error) {
    over(error as Error);
  }
}

async function make({ device, sets, sizes }: Shipped, mib: number): Promise<Machine> {
  return new Machine(await loadFormat(device), { ...sizes, programs: sets, mib });
}

async function attempt(set: Shipped, packets: number): Promise<void> {
  const trial = await make(set, TRY_MIB);
  try {
    trial.run(packets);
    for (const [name, flow] of [
      ["from the guest", trial.fromGuest],
      ["to the guest", trial.toGuest],
    ] as const) {
      const { sent, lost, repeated, damaged } = flow;
      if (lost + repeated + damaged === 0) continue;
      const counts = `${lost} lost, ${repeated} repeated, ${damaged} damaged`;
      throw new Error(`of ${sent} packets ${name}, in a machine of its own: ${counts}`);
    }
  } finally {
    trial.close();
  }
}

async function swap({ device, sets, sizes }: Shipped): Promise<void> {
  const format = await loadFormat(device);
  const running = machine!;
  await new Promise<void>((resolve, reject) => {
    const limit = setTimeout(() => taken?.(new Error("the guest has not taken it")), SWAP_MS);
    taken = (error) => {
      clearTimeout(limit);
      taken = undefined;
      if (error === undefined) resolve();
      else reject(error);
    };
    try {
      running.replace(format, { ...sizes, programs: sets });
    } catch (error) {
      taken(error as Error);
    }
  });
}

function counts(): Counts {
  const { fromGuest, toGuest, busyMs } = machine!;
  return { fromGuest, toGuest, busyMs };
}

async function carryOut(order: Order): Promise<Counts | undefined> {
  switch (order.verb) {
    case "try":
      await attempt(order.set, order.packets);
      return undefined;
    case "start":
      machine = await make(order.set, MACHINE_MIB);
      work();
      return undefined;
    case "swap":
      await swap(order.set);
      return undefined;
    case "count":
      return counts();
    default:
      stopped = true;
      machine?.settle();
      return machine && counts();
  }
}

async function answer(order: Order): Promise<void> {
  const started = performance.now();
  const { id } = order;
  let reply: Answered;
  try {
    const result = await carryOut(order);
    const ms = performance.now() - started;
    reply = { id, ms, ...(result === undefined ? {} : { result }) };
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    const { message, stack = "" } = error.cause instanceof Error ? error.cause : error;
    reply = { id, ms: performance.now() - started, error: { message, stack } };
  }
  port.postMessage(reply);
}

port.on("message", (order: Order) => void answer(order));
