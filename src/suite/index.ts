/** The ring suite: what holds for every ring format, from inside the tree and from outside. */
import type { ProgramForm } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import type { Case, Subject } from "./case.ts";
import { conservationCases } from "./conservation.ts";
import { lieCases } from "./lies.ts";
import { programCases } from "./programs.ts";
import { reopenCases } from "./reopen.ts";
import { ringCases } from "./rings.ts";
import { wakeUpCases } from "./wakeups.ts";

export type { Case, Subject } from "./case.ts";

const FORMS: readonly ProgramForm[] = ["helperfree", "v1"];

/** Checks by group. Cheap ones first: what fails there explains what fails later. */
export const GROUPS: Readonly<Record<string, (subject: Subject) => Case[]>> = {
  programs: programCases,
  rings: ringCases,
  wakeups: wakeUpCases,
  reopen: reopenCases,
  conservation: conservationCases,
  lies: lieCases,
};

export interface SuiteCase extends Case {
  readonly group: string;
  readonly form: ProgramForm;
}

export interface SuiteOptions {
  readonly sizes: readonly number[];
  /** Runs of each random check. */
  readonly runs: number;
}

export function suiteOf(format: RingFormat, options: SuiteOptions): SuiteCase[] {
  return FORMS.flatMap((form) =>
    Object.entries(GROUPS).flatMap(([group, casesOf]) =>
      casesOf({ format, form, ...options }).map((each) => ({ ...each, group, form })),
    ),
  );
}
