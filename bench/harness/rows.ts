/** Makes rows and controls of the samples of all iterations. */
import type { Against, Aim, Bench, Control, Row, RowSpec, Sample } from "./bench.ts";
import { judge, median, rounded, verdict } from "./statistics.ts";

/** The control of rows that name none. */
export const FIXED_WORK = "fixed work";

/** Samples of one tree, by round. */
export type Rounds = readonly (readonly Sample[])[];

interface Measured {
  readonly ours: Rounds;
  /** The other revision's. */
  readonly theirs?: { readonly revision: string; readonly rounds: Rounds };
  /** Fixed work, before and after each iteration. */
  readonly fixed: readonly (readonly [number, number])[];
  /** Why times measured on this machine do not count; null if they do. */
  readonly disturbance: string | null;
}

const valuesOf = (rounds: Rounds, name: string): number[] =>
  rounds.flatMap((samples) => samples.flatMap(({ values }) => values[name] ?? []));

export function makeResult(bench: Bench, measured: Measured) {
  const controls = makeControls(bench, measured);
  const rows = bench.rows
    .filter(({ name }) => valuesOf(measured.ours, name).length > 0)
    .map((spec) => makeRow(spec, measured, controls, bench.steady ?? false));
  return { controls, rows };
}

function makeControls(bench: Bench, { ours, fixed }: Measured): Record<string, Control> {
  const pairs = new Map<string, (readonly [number, number])[]>([[FIXED_WORK, [...fixed]]]);
  for (const { controls = {} } of ours.flat()) {
    for (const [name, pair] of Object.entries(controls)) {
      pairs.set(name, [...(pairs.get(name) ?? []), pair]);
    }
  }
  const judged = [...pairs].map(([name, list]) => {
    const first = list.map(([value]) => value);
    const last = list.map(([, value]) => value);
    return [name, judge(first, last, bench.limits?.[name] ?? bench.limit)] as const;
  });
  return Object.fromEntries(judged);
}

function makeRow(
  spec: RowSpec,
  measured: Measured,
  controls: Record<string, Control>,
  isSteady: boolean,
): Row {
  const { name, unit, baseline = null, aim = null, control = FIXED_WORK } = spec;
  const raw = valuesOf(measured.ours, name);
  const base = baseline === null ? [] : valuesOf(measured.ours, baseline);
  const value = median(raw);
  const ratio = base.length === 0 ? null : value / median(base);
  const judged = controls[control];
  const doubt = judged === undefined ? `no control "${control}"` : verdict(control, judged);
  const why = spec.isCount ? null : (doubt ?? (isSteady ? null : measured.disturbance));
  return {
    ...{ name, value: rounded(value), unit, baseline },
    ratio: ratio === null ? null : rounded(ratio),
    ratios: base.length === raw.length ? raw.map((each, i) => rounded(each / base[i]!)) : [],
    ...{ aim, met: aim === null ? null : isMet(aim, value, ratio) },
    raw: raw.map(rounded),
    ...{ control, counted: why === null, why },
    ...against(name, value, measured.theirs),
  };
}

function against(name: string, value: number, theirs: Measured["theirs"]): { against?: Against } {
  if (theirs === undefined) return {};
  const raw = valuesOf(theirs.rounds, name);
  if (raw.length === 0) return {};
  const other = median(raw);
  const ratio = rounded(value / other);
  const { revision } = theirs;
  return { against: { revision, value: rounded(other), ratio, raw: raw.map(rounded) } };
}

function isMet({ of, most, least }: Aim, value: number, ratio: number | null): boolean | null {
  const judged = of === "value" ? value : ratio;
  if (judged === null) return null;
  return judged <= (most ?? Number.POSITIVE_INFINITY) && judged >= (least ?? 0);
}
