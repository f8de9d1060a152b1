/** `bpfhv set-port`, `set-mtu` and the like: one for each field that a running NIC takes. */
import { Command } from "commander";
import { problemOf, type Value } from "../control/field.ts";
import { readSpec } from "../control/read-spec.ts";
import { FIELD_NAMES, type FieldName, fieldOf, REPLACE } from "../control/spec.ts";
import { checked, request } from "./ask-nic.ts";

export function setCommands(): Command[] {
  return FIELD_NAMES.filter(isSetAlone).map((name) =>
    new Command(`set-${name}`)
      .description(`change the ${name} of a running NIC`)
      .argument("<socket>", "the socket given to `bpfhv serve --socket`")
      .argument("<value>", fieldOf(name).about)
      .action((socket: string, text: string) => set(socket, name, text)),
  );
}

/** What makes another set of programs is one change: `bpfhv upgrade`. */
function isSetAlone(name: FieldName): boolean {
  const { change } = fieldOf(name);
  return typeof change !== "string" && change.verb !== REPLACE;
}

async function set(socket: string, name: FieldName, text: string): Promise<void> {
  const wanted = readSpec({ [name]: wordsToValue(name, text) });
  const answer = await request(socket, { method: "PATCH", body: wanted });
  const status = checked(socket, answer.status);
  const { change } = fieldOf(name);
  if (typeof change === "string") return;
  const to = wanted[name] as Value;
  process.stdout.write(`${change.told(before(answer.changed, name, to), to, { ...status })}\n`);
}

function wordsToValue(name: FieldName, text: string): unknown {
  const { schema, words } = fieldOf(name);
  if (words !== undefined) return words.read(text);
  return schema.type === "integer" && /^\d{1,15}$/.test(text) ? Number(text) : text;
}

/** @returns what the field was, as the server says; `otherwise` if nothing was changed */
function before(changed: unknown, name: FieldName, otherwise: Value): Value {
  const actions: unknown[] = Array.isArray(changed) ? changed : [];
  const action = actions.find((each) => (each as { field?: unknown } | null)?.field === name);
  const { from } = (action ?? {}) as { from?: Value };
  const isValid = problemOf(fieldOf(name).schema, from) === null;
  return isValid && from !== undefined ? from : otherwise;
}
