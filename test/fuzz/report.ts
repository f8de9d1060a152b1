/** Reports of campaigns: a periodic line, a table at the end, JSON. */
import type { Finding, Result } from "./campaign.ts";

const count = (n: number): string => n.toLocaleString("en-US");
const memory = ({ resources }: Result): string =>
  resources === null
    ? "-"
    : `${Math.round(resources[0].residentMb)} to ${Math.round(resources[1].residentMb)}`;
const descriptors = ({ resources }: Result): string =>
  resources === null ? "-" : `${resources[0].descriptors} to ${resources[1].descriptors}`;

export function progressLine(result: Result): string {
  const { target, seconds, units, unit, cases, checks, finds } = result;
  const done = `${count(units)} ${unit} in ${count(cases)} cases, ${checks} checks`;
  const held = `${memory(result)} MB, ${descriptors(result)} descriptors`;
  const time = `${Math.round(seconds)} s`;
  return `${target.padEnd(10)} ${time}: ${done}, ${held}, ${finds.length} finds`;
}

export function findLines(target: string, finding: Finding): string {
  const where = finding.file === null ? "" : `\n  kept: ${finding.file}`;
  const error = finding.error.trim().split("\n").slice(0, 12).join("\n    ");
  return `${target}: FIND in case ${finding.case} (${finding.during}):\n    ${error}${where}`;
}

export function table(results: readonly Result[]): string {
  const head = ["target", "s", "cases", "units", "checks", "resident MB", "descriptors", "finds"];
  const rows = results.map((r) => [
    ...[r.target, `${Math.round(r.seconds)}`, count(r.cases), `${count(r.units)} ${r.unit}`],
    ...[`${r.checks}`, memory(r), descriptors(r), `${r.finds.length}`],
  ]);
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join("  ")
      .trimEnd();
  return [head, ...rows].map(line).join("\n");
}
