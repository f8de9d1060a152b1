/**
 * One field of a NIC's spec: what it takes, as JSON Schema, how the command line and people name
 * it, and what a change of it costs. The check of a value against its schema is here, too: a
 * library for it (TypeBox) costs more memory and time at the start than all of the control plane.
 */
import { printable } from "./printable.ts";

export type Value = string | number | boolean | readonly string[];

/** The part of JSON Schema that a spec needs. */
export type Schema =
  | {
      readonly type: "string";
      readonly maxLength: number;
      readonly pattern?: string;
      readonly enum?: readonly string[];
    }
  | { readonly type: "integer"; readonly minimum: number; readonly maximum: number }
  | { readonly type: "boolean" }
  | {
      readonly type: "array";
      readonly maxItems: number;
      readonly items: { readonly type: "string"; readonly maxLength: number };
    };

/** A change that a running NIC takes. */
export interface LiveChange<V, Spec> {
  /** What its worker calls it: a row of the worker's table of verbs. */
  readonly verb: string;
  /** What the worker is sent: plain data. */
  readonly body: (value: V, spec: Spec) => unknown;
  /** What came of it, for people. @param status of the NIC behind the change */
  readonly told: (from: V, to: V, status: Readonly<Record<string, unknown>>) => string;
}

export interface Field<V extends Value, Spec> {
  /** One line for the help text, the API's description and the reference. */
  readonly about: string;
  readonly schema: Schema;
  /** A value; or how it follows from the rest of a spec that does not give it. */
  readonly default: V | ((given: Partial<Spec>) => V);
  /** What the help text shows if the default follows from the rest. */
  readonly defaultWords?: string;
  /** As in `--mtu <bytes>`. */
  readonly option: string;
  /** In the help text in place of `about`, if the option takes other words. */
  readonly optionAbout?: string;
  /** The value in the words of the command line; default: by the type. */
  readonly words?: { readonly read: (text: string) => V; readonly write: (value: V) => string };
  /** What the schema cannot say. @throws Error that says what is wrong, and what to do */
  readonly check?: (value: V) => void;
  /** Or why a running NIC does not take one: a clause behind "because". */
  readonly change: LiveChange<V, Spec> | string;
  /** For tests, and not in the help text. */
  readonly hidden?: boolean;
}

/** @returns what is wrong with the value and what to do; null: nothing */
export function problemOf(schema: Schema, value: unknown): string | null {
  switch (schema.type) {
    case "integer": {
      const { minimum, maximum } = schema;
      const holds = Number.isInteger(value) && +(value as number) >= minimum;
      if (holds && (value as number) <= maximum) return null;
      return `use a whole number from ${minimum} to ${maximum}`;
    }
    case "boolean":
      return typeof value === "boolean" ? null : "use true or false";
    case "string":
      return stringProblem(schema, value);
    case "array": {
      if (!Array.isArray(value)) return "use a list of strings";
      if (value.length > schema.maxItems) return `use at most ${schema.maxItems} items`;
      for (const each of value) {
        const problem = stringProblem(schema.items, each);
        if (problem !== null) return `${shown(each)}: ${problem}`;
      }
      return null;
    }
  }
}

function stringProblem(
  schema: { maxLength: number; pattern?: string; enum?: readonly string[] },
  value: unknown,
): string | null {
  if (typeof value !== "string") return "use a string";
  if (schema.enum !== undefined) {
    return schema.enum.includes(value) ? null : `use ${schema.enum.join(" or ")}`;
  }
  if (value === "" || value.length > schema.maxLength) {
    return `use 1 to ${schema.maxLength} characters`;
  }
  if (value.includes("\0")) return "it has a NUL character";
  if (schema.pattern !== undefined && !new RegExp(schema.pattern, "u").test(value)) {
    return `use what matches ${schema.pattern}`;
  }
  return null;
}

/** A value for people; that of a hostile client, too. */
export function shown(value: unknown): string {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "nothing");
  return printable(text, 100);
}
