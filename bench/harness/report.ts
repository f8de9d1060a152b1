/** A result as text: for terminals, and the caption of tables in pages. */
import type { Aim, Header, Result, Row } from "./bench.ts";

/** Three digits that mean something, without an exponent. */
export function digits(value: number, count = 3): string {
  if (!Number.isFinite(value)) return "-";
  if (Math.abs(value) >= 10 ** count) return String(Math.round(value));
  return String(Number(value.toPrecision(count)));
}

export function aimText({ of, most, least }: Aim): string {
  const limits = [
    ...(most === undefined ? [] : [`at most ${most}`]),
    ...(least === undefined ? [] : [`at least ${least}`]),
  ];
  return `${of === "ratio" ? "ratio " : ""}${limits.join(", ")}`;
}

export function align(lines: readonly (readonly string[])[]): string {
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  const pad = (cell: string, i: number): string =>
    i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!);
  return lines.map((line) => line.map(pad).join("  ").trimEnd()).join("\n");
}

export function markdown(lines: readonly (readonly string[])[]): string {
  const [head, ...body] = lines.map((cells) => `| ${cells.join(" | ")} |`.replace("|  |", "| |"));
  return [head, `|${"---|".repeat(lines[0]!.length)}`, ...body].join("\n");
}

/** A row's value, and its ratio to the baseline if it has one: "12.3 (1.04)". */
export function valueCell({ rows }: Result, name: string): string {
  const row = rows.find((one) => one.name === name);
  if (row === undefined) return "-";
  return row.ratio === null ? digits(row.value) : `${digits(row.value)} (${digits(row.ratio, 2)})`;
}

export function terminalTable({ header, rows }: Result): string {
  const others = header.against === undefined ? [] : [header.against, `to ${header.against}`];
  const head = ["row", "value", "unit", "ratio", "to", "aim", ...others, ""];
  const body = rows.map((row) => [
    ...[row.name, digits(row.value, 4), row.unit],
    ...[row.ratio === null ? "" : digits(row.ratio), row.baseline ?? ""],
    row.aim === null ? "" : `${aimText(row.aim)}${row.met === false ? ": MISSED" : ""}`,
    ...(others.length === 0 ? [] : againstCells(row)),
    row.counted ? "" : "not counted",
  ]);
  return align([head, ...body]);
}

function againstCells({ against }: Row): string[] {
  return against === undefined ? ["", ""] : [digits(against.value, 4), digits(against.ratio)];
}

/** Reasons of rows that do not count, each once. */
export function reasons({ rows }: Result): string[] {
  const names = new Map<string, string[]>();
  for (const { name, why } of rows) {
    if (why !== null) names.set(why, [...(names.get(why) ?? []), name]);
  }
  return [...names].map(([why, list]) => {
    const which = list.length === rows.length ? "all rows" : list.join(", ");
    return `not counted (${which}): ${why}`;
  });
}

/** Says on what, and how, a result was measured. */
export function caption(result: Result): string {
  const { header } = result;
  const { machine, facts } = header;
  const load = machine.load.map((each) => each.toFixed(1)).join(" to ");
  const conditions = [
    `${header.rounds} ${header.rounds === 1 ? "round" : "rounds"}${header.quick ? " (quick)" : ""}`,
    ...Object.entries(facts).map(([name, value]) => `${name} ${value}`),
    `${machine.cpus} CPUs (${machine.model})`,
    `steal ${(100 * machine.steal).toFixed(1)} %`,
    `others ${(100 * machine.others).toFixed(1)} %`,
    `load ${load}`,
    `Linux ${machine.kernel}`,
    `Node ${header.node}`,
    ...guestConditions(header),
    `revision ${header.revision}`,
    header.date.slice(0, 10),
  ];
  return conditions.join(", ");
}

const guestConditions = ({ qemu, accelerator }: Header): string[] =>
  qemu === null ? [] : [`QEMU ${qemu}`, `${accelerator}`];
