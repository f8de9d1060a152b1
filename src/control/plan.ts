/** From the spec of what runs to the spec of what should run, as actions that can be undone. */
import { CommandError, STATUS } from "../errors.ts";
import { shown, type Value } from "./field.ts";
import { printable } from "./printable.ts";
import { FIELD_NAMES, type FieldName, fieldOf, type NicSpec, REPLACE } from "./spec.ts";

/** A change of one field of a running NIC. Plain data: what a dry run shows. */
export interface Action {
  /** What the worker calls it. */
  readonly verb: string;
  readonly field: FieldName;
  readonly from: Value;
  readonly to: Value;
}

/** Changes that a running NIC does not take: none is made. */
export class ChangeRefused extends CommandError {
  readonly fields: readonly FieldName[];
  constructor(refusals: ReadonlyMap<FieldName, string>) {
    super([...refusals.values()].join("; "), STATUS.failure);
    this.name = "ChangeRefused";
    this.fields = [...refusals.keys()];
  }
}

/**
 * An action failed; what was changed before it was changed back, unless the message says otherwise.
 */
export class ApplyFailed extends CommandError {
  constructor(message: string, cause: unknown) {
    super(message, STATUS.failure);
    this.name = "ApplyFailed";
    this.cause = cause;
  }
}

/**
 * @returns what makes `wanted` of `current`, in the order of the table of fields; but programs and
 * rings are replaced last, because that is not undone
 * @throws ChangeRefused if any field cannot change: all of them are named
 */
export function plan(current: NicSpec, wanted: NicSpec): Action[] {
  const actions: Action[] = [];
  const refusals = new Map<FieldName, string>();
  for (const field of FIELD_NAMES) {
    const [from, to] = [current[field], wanted[field]];
    if (isEqual(from, to)) continue;
    const { change } = fieldOf(field);
    if (typeof change === "string") refusals.set(field, refusal(field, from, to, change));
    else actions.push({ verb: change.verb, field, from, to });
  }
  if (refusals.size > 0) throw new ChangeRefused(refusals);
  return [...actions.filter((each) => !replaces(each)), ...actions.filter(replaces)];
}

/** The replacement of programs and rings: all such actions of a plan are one change. */
export function replaces({ verb }: Action): boolean {
  return verb === REPLACE;
}

function refusal(field: FieldName, from: Value, to: Value, because: string): string {
  const { option, words } = fieldOf(field);
  const flag = option.split(" ", 1)[0];
  const value = words === undefined ? to : words.write(to);
  const without = value === false || value === "";
  const how = without
    ? `without ${flag}`
    : `with ${flag}${value === true ? "" : ` ${shown(value)}`}`;
  const what = `${field}: cannot change from ${shown(from)} to ${shown(to)} while the NIC runs`;
  return `${what}, because ${because}: stop it and start it again ${how}`;
}

function isEqual(a: Value, b: Value): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** What undoes an action. */
export function inverse({ verb, field, from, to }: Action): Action {
  return { verb, field, from: to, to: from };
}

/**
 * Carries out actions in turn. If one fails, those before it are undone, last first.
 * @param change carries out one, all of it or nothing
 * @throws ApplyFailed
 */
export async function apply(
  actions: readonly Action[],
  change: (action: Action) => Promise<void>,
): Promise<void> {
  for (const [n, action] of actions.entries()) {
    try {
      await change(action);
    } catch (error) {
      const undone = await undo(actions.slice(0, n), change);
      const why = printable((error as Error).message);
      throw new ApplyFailed(
        `${why} (${[`the ${action.field} stays as it was`, ...undone].join("; ")})`,
        error,
      );
    }
  }
}

/** @returns for people: what is as it was before, and what is not */
async function undo(
  actions: readonly Action[],
  change: (action: Action) => Promise<void>,
): Promise<string[]> {
  const outcome: string[] = [];
  for (const action of [...actions].reverse()) {
    const { field, from, to } = action;
    try {
      await change(inverse(action));
      outcome.push(`the ${field} is ${shown(from)} again`);
    } catch (error) {
      outcome.push(`the ${field} stays ${shown(to)}: ${printable((error as Error).message, 200)}`);
    }
  }
  return outcome;
}

/** What the worker of a NIC is sent for an action. */
export function bodyOf({ field, to }: Action, spec: NicSpec): unknown {
  const { change } = fieldOf(field);
  if (typeof change === "string") throw new Error(`${field} cannot change live`);
  return change.body(to, spec);
}

/** One line for people. */
export function describeAction({ field, from, to }: Action): string {
  return `${field}: ${shown(from)} -> ${shown(to)}`;
}
