/** Runs a bench: rounds in which every part, and every revision, takes its turn. */
import { loadavg } from "node:os";
import type { Bench, Result, Sample } from "./bench.ts";
import { runSample } from "./child.ts";
import { disturbance, guestFacts, ROOT, revision, watchMachine } from "./machine.ts";
import { makeResult } from "./rows.ts";

export interface Other {
  readonly root: string;
  readonly revision: string;
}

export interface Plan {
  readonly rounds: number;
  readonly quick: boolean;
  readonly other?: Other;
  readonly env: NodeJS.ProcessEnv;
  readonly say: (text: string) => void;
}

/** Begins with another one each time, so that none is always first. */
const rotated = <T>(list: readonly T[], by: number): T[] =>
  list.map((_, i) => list[(i + by) % list.length]!);

/** With more runnable tasks than CPUs, each gets its share only. */
const patience = (cpus: number): number => Math.max(1, Math.min(6, loadavg()[0]! / cpus));

export async function measure(bench: Bench, plan: Plan): Promise<Result> {
  const { rounds, quick, other, say } = plan;
  const started = performance.now();
  const date = new Date().toISOString();
  const watch = watchMachine();
  const guest = bench.vm ? await guestFacts() : { qemu: null, accelerator: null };
  const take = (root: string, words: readonly string[], round: number) =>
    runSample({
      ...{ root, env: plan.env, seconds: bench.seconds * patience(watch().machine.cpus) },
      words: [...words, String(round), ...(quick ? ["quick"] : [])],
    });
  const fixedWork = async (round: number): Promise<number> =>
    Number((await take(ROOT, ["fixed-work", ""], round)).values.ms);
  const ours: Sample[][] = [];
  const theirs: Sample[][] = [];
  const fixed: [number, number][] = [];
  const sides = [{ root: ROOT, to: ours }, ...(other ? [{ root: other.root, to: theirs }] : [])];
  for (let round = 0; round < rounds; round++) {
    const seconds = Math.round((performance.now() - started) / 1000);
    say(`${bench.name}: round ${round + 1} of ${rounds}, after ${seconds} s`);
    for (const { to } of sides) to.push([]);
    const first = await fixedWork(round);
    for (const part of rotated(bench.parts, round)) {
      if (bench.vm) say(`${bench.name}: ${part}`);
      for (const { root, to } of rotated(sides, round)) {
        to[round]!.push(await take(root, [bench.name, part], round));
      }
    }
    fixed.push([first, await fixedWork(round)]);
  }
  const machine = watch();
  const facts = Object.assign({}, ...ours.flat().map((sample) => sample.facts ?? {}));
  const header = {
    ...{ bench: bench.name, date, revision: revision() },
    ...(other ? { against: other.revision } : {}),
    ...{ rounds, quick, seconds: Math.round((performance.now() - started) / 1000) },
    ...machine,
    ...guest,
    facts,
  };
  const disturbed = disturbance(machine.machine);
  const measured = {
    ours,
    fixed,
    disturbance: disturbed,
    ...(other ? { theirs: named(other, theirs) } : {}),
  };
  return { header, ...makeResult(bench, measured) };
}

const named = ({ revision }: Other, rounds: Sample[][]) => ({ revision, rounds });
