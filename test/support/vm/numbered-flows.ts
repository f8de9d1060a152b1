/**
 * Numbered datagrams between a guest and its namespace, both ways at once. The receivers check each
 * one's number and content, and measure the longest time without one.
 */

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { buildGuestProgram } from "./guest-program.ts";
import type { Guest, Netns } from "./harness.ts";
import { patience, sleep, until, within } from "./time.ts";

export const NUMBERED = "/extra/numbered_udp";
/** By then what was sent has arrived, or is lost. */
const SETTLE_MS = 500;

/** What went wrong with datagrams. */
export interface Faults {
  readonly lost: number;
  readonly duplicated: number;
  readonly damaged: number;
  readonly reordered: number;
  /** The first of them. */
  readonly missing: readonly number[];
}

/** Of one direction. */
export interface Flow extends Faults {
  readonly sent: number;
  readonly received: number;
}

/** Nothing did. */
export const WHOLE: Faults = { lost: 0, duplicated: 0, damaged: 0, reordered: 0, missing: [] };

/** Both ends of the flows. */
export interface Ends {
  readonly guest: Guest;
  readonly netns: Netns;
  /** IPv4 addresses: the namespace's, the guest's. */
  readonly link: { readonly host: string; readonly peer: string };
}

export interface FlowOptions {
  /** Path of the program on the host. */
  readonly program: string;
  /** Datagrams per second and direction. */
  readonly rate: number;
  /** Datagrams sent at once: they are in the rings together. */
  readonly burst: number;
  readonly port: number;
  /** The guest's CPU that sends: a flow keeps its queue. */
  readonly cpu: number;
}

/** Compiles the program for guest and host. @returns its path */
export const buildNumbered = (folder: string): string =>
  buildGuestProgram(folder, "test/vm/numbered-udp/numbered_udp.c");

/** A process of the host, and what it printed. */
class Program {
  readonly #child: ChildProcess;
  text = "";

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.on("data", (chunk) => {
      this.text += chunk;
    });
    child.stderr?.resume();
  }

  async printed(word: string): Promise<void> {
    await until(patience(5000), `"${word}" of a numbered flow`, () => this.text.includes(word));
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  async stop(): Promise<string> {
    const closed = once(this.#child, "close");
    this.#child.kill("SIGTERM");
    await within(patience(5000), "a numbered flow to stop", closed);
    return this.text;
  }
}

export class NumberedFlows {
  readonly #vm: Ends;
  readonly #port: number;
  readonly #receiver: Program;
  readonly #sender: Program;
  /** What the host's sender said at its end. */
  #sent: Promise<string> | null = null;

  private constructor(vm: Ends, port: number, receiver: Program, sender: Program) {
    this.#vm = vm;
    this.#port = port;
    this.#receiver = receiver;
    this.#sender = sender;
  }

  static async start(
    vm: Ends,
    { program, rate, burst, port, cpu }: FlowOptions,
  ): Promise<NumberedFlows> {
    const { host, peer } = vm.link;
    const receiver = new Program(vm.netns.spawn([program, "receive", `${port}`]));
    await receiver.printed("ready");
    await vm.guest.check(
      `${NUMBERED} receive ${port} >/tmp/in${port} 2>&1 & echo $! >/tmp/in${port}.pid
until grep -q ready /tmp/in${port}; do sleep 0.05; done
taskset ${1 << cpu} ${NUMBERED} send ${host} ${port} ${rate} ${burst} >/tmp/out${port} 2>&1 &
echo $! >/tmp/out${port}.pid`,
    );
    const words = [program, "send", peer, `${port}`, `${rate}`, `${burst}`];
    return new NumberedFlows(vm, port, receiver, new Program(vm.netns.spawn(words)));
  }

  /** @returns the longest time without a datagram since the last call, in ms: from, to the guest */
  async gaps(): Promise<[number, number]> {
    this.#receiver.signal("SIGUSR1");
    const inside = await this.#vm.guest.check(
      `kill -USR1 $(cat /tmp/in${this.#port}.pid); sleep 0.1; tail -n 1 /tmp/in${this.#port}`,
    );
    return [lastGap(this.#receiver.text), lastGap(inside)];
  }

  /** Ends what the host sends: a guest that can hardly keep up has time for what follows then. */
  endSending(): Promise<string> {
    this.#sent ??= this.#sender.stop();
    return this.#sent;
  }

  /** Ends both directions. @returns what became of them: from the guest, to the guest */
  async stop(): Promise<[Flow, Flow]> {
    const ended = (name: string) =>
      this.#vm.guest.check(
        `file=/tmp/${name}${this.#port}; pid=$(cat $file.pid); kill $pid
while [ -e /proc/$pid ]; do sleep 0.05; done; cat $file`,
      );
    const inSent = await this.endSending();
    const outSent = await ended("out");
    await sleep(patience(SETTLE_MS));
    const inReceived = await ended("in");
    const outReceived = await this.#receiver.stop();
    return [flowOf(outSent, outReceived), flowOf(inSent, inReceived)];
  }
}

function lastGap(text: string): number {
  const gap = [...text.matchAll(/^gap (\d+)$/gm)].at(-1)?.[1];
  if (gap === undefined) throw new Error(`no gap in: ${text}`);
  return Number(gap) / 1000;
}

function flowOf(sender: string, receiver: string): Flow {
  const sent = /^sent (\d+)/m.exec(sender);
  const all = /received (\d+) duplicated (\d+) damaged (\d+) reordered (\d+)/.exec(receiver);
  if (sent === null || all === null) throw new Error(`no numbers in: ${sender}, ${receiver}`);
  const [received, duplicated, damaged, reordered] = all.slice(1).map(Number);
  const lost = Number(sent[1]) - received;
  const missing = [...receiver.matchAll(/^missing (\d+)$/gm)].map(([, number]) => Number(number));
  return { sent: Number(sent[1]), received, lost, duplicated, damaged, reordered, missing };
}
