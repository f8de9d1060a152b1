/** Benches by name, loaded one by one: another revision may lack what one of them needs. */
import type { Bench } from "./bench.ts";

/** In the order of a run; a file of `bench/rows` each. */
export const NAMES = [
  "compiler",
  "jit",
  "embedded",
  "start",
  "memory",
  "virtio-net",
  "efficiency",
  "xdp",
  "mtu",
  "live",
] as const;

export async function loadBench(name: string): Promise<Bench> {
  const { bench } = (await import(`../rows/${name}.js`)) as { readonly bench: Bench };
  return bench;
}

export const loadBenches = (names: readonly string[]): Promise<Bench[]> =>
  Promise.all(names.map(loadBench));
