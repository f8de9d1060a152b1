/**
 * One fresh process of a bench: measures one part, and prints the sample as its last line.
 *
 *     node dist/bench/sample.js BENCH PART ROUND [quick]
 */
import { loadBench } from "./harness/registry.ts";

/** Milliseconds that a fixed number of integer operations takes. */
function fixedWork(quick: boolean): number {
  const turn = (): number => {
    const started = performance.now();
    let x = 1;
    for (let i = 0; i < 20_000_000; i++) x = (Math.imul(x, 1103515245) + 12345 + i) | 0;
    if (x === 0) throw new Error("the generator has no such value here");
    return performance.now() - started;
  };
  turn();
  const times = Array.from({ length: quick ? 3 : 9 }, turn).sort((a, b) => a - b);
  return times[times.length >> 1]!;
}

const [name, part, round, mode] = process.argv.slice(2);
const quick = mode === "quick";
const sample =
  name === "fixed-work"
    ? { values: { ms: fixedWork(quick) } }
    : await (await loadBench(name!)).sample(part!, { quick, round: Number(round) });
process.stdout.write(`\n${JSON.stringify(sample)}\n`);
