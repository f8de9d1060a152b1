/** Medians, and controls that judge whether a run can be trusted. */
import type { Control } from "./bench.ts";

/** @param share 0.5: the median */
function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const [low, high] = [sorted[Math.floor(at)]!, sorted[Math.ceil(at)]!];
  return low + (high - low) * (at - Math.floor(at));
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** Enough digits for any figure here, and few enough to read. */
export const rounded = (value: number): number => Number(value.toPrecision(5));

/** Of what was measured first and last in every iteration. */
export function judge(first: readonly number[], last: readonly number[], limit: number): Control {
  const all = [...first, ...last];
  const share = median(first) / median(last);
  const moved = Math.max(share, 1 / share) - 1;
  const spread = (quantile(all, 0.75) - quantile(all, 0.25)) / median(all);
  return {
    moved: rounded(moved),
    spread: rounded(spread),
    limit,
    // What is not a number is not flat.
    flat: moved <= limit && spread <= limit,
    first: first.map(rounded),
    last: last.map(rounded),
  };
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

export const movement = ({ moved, spread, limit }: Control): string =>
  `moved ${percent(moved)}, spread ${percent(spread)}, limit ${percent(limit)}`;

/** Says why a control's rows are not counted; null if they are. */
export const verdict = (name: string, control: Control): string | null =>
  control.flat ? null : `control "${name}" was not flat: ${movement(control)}`;
