/** Specs that come from outside: from a file, over the API, by options. None is trusted. */
import { Usage } from "../errors.ts";
import { problemOf, shown, type Value } from "./field.ts";
import { printable } from "./printable.ts";
import { FIELD_NAMES, type FieldName, fieldOf, type NicSpec } from "./spec.ts";

/** One field that is wrong. */
export interface Problem {
  readonly path: string;
  readonly value: unknown;
  /** What is wrong, and what to do. */
  readonly problem: string;
}

/** The spec is wrong; the message tells all that is. */
export class SpecError extends Usage {
  readonly problems: readonly Problem[];
  constructor(problems: readonly Problem[]) {
    super(problems.map(({ path, value, problem }) => describe(path, value, problem)).join("; "));
    this.name = "SpecError";
    this.problems = problems;
  }
}

function describe(path: string, value: unknown, problem: string): string {
  return value === undefined ? `${path}: ${problem}` : `${path} ${shown(value)}: ${problem}`;
}

/** Errors beyond this many are left out. */
const MAX_PROBLEMS = 10;

/**
 * @returns the fields that are given, checked one by one
 * @throws SpecError
 */
export function readSpec(value: unknown): Partial<NicSpec> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new SpecError([{ path: "spec", value, problem: "use an object of fields" }]);
  }
  const problems: Problem[] = [];
  for (const [path, each] of Object.entries(value)) {
    const problem = fieldProblem(path, each);
    if (problem !== null) problems.push({ path: printable(path, 60), value: each, problem });
    if (problems.length === MAX_PROBLEMS) break;
  }
  if (problems.length > 0) throw new SpecError(problems);
  return { ...value };
}

export function isField(path: string): path is FieldName {
  return (FIELD_NAMES as readonly string[]).includes(path);
}

function fieldProblem(path: string, value: unknown): string | null {
  if (!isField(path)) return `unknown field: there are ${FIELD_NAMES.join(", ")}`;
  const { schema, check } = fieldOf(path);
  const problem = problemOf(schema, value);
  if (problem !== null) return problem;
  try {
    check?.(value as Value);
    return null;
  } catch (error) {
    return printable((error as Error).message, 400);
  }
}

/**
 * All fields: those that are not given have their default. A default that follows from other fields
 * is made when a NIC starts; a running one keeps what it has.
 * @throws SpecError if fields contradict each other
 */
export function completeSpec(given: Partial<NicSpec>, running?: NicSpec): NicSpec {
  const fields: Partial<Record<FieldName, Value>> = {};
  for (const name of FIELD_NAMES) {
    const { default: value } = fieldOf(name);
    const derived = () => running?.[name] ?? (value as (given: Partial<NicSpec>) => Value)(given);
    fields[name] = given[name] ?? (typeof value === "function" ? derived() : value);
  }
  const spec = fields as unknown as NicSpec;
  if (spec.socket === "") {
    const problem = "missing: give the path of the UNIX socket that QEMU connects to";
    throw new SpecError([{ path: "socket", value: undefined, problem }]);
  }
  const { mtu, maxMtu } = spec;
  if (mtu > maxMtu) {
    const most = `the NIC was started with: use at most ${maxMtu}, or start it with --max-mtu ${mtu}`;
    throw new SpecError([{ path: "mtu", value: mtu, problem: `more than ${most}` }]);
  }
  return spec;
}
