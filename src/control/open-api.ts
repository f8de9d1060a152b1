/** The API in the terms of OpenAPI 3.1, made from the tables of fields and routes. */
import type { Schema } from "./field.ts";
import { type Method, type Operation, ROUTES } from "./routes.ts";
import { FIELD_NAMES, fieldOf } from "./spec.ts";

const JSON_TYPE = "application/json";
const ref = (name: string) => ({ $ref: `#/components/schemas/${name}` });

export function openApi(version: string): unknown {
  const paths = Object.entries(ROUTES).map(([path, operations]) => [
    path,
    pathItem(path, operations),
  ]);
  return {
    openapi: "3.1.0",
    info: { title: "bpfhv: NICs of a server", version, description: "On the socket SOCKET.ctl." },
    paths: Object.fromEntries(paths),
    components: { schemas: SCHEMAS },
  };
}

function pathItem(path: string, operations: Readonly<Partial<Record<Method, Operation>>>): object {
  const methods = Object.entries(operations).map(([method, operation]) => [
    method.toLowerCase(),
    operationObject(operation),
  ]);
  const name = { name: "name", in: "path", required: true, schema: { type: "string" } };
  const parameters = path.includes("{name}") ? { parameters: [name] } : {};
  return { ...parameters, ...Object.fromEntries(methods) };
}

function operationObject({ about, takes, answers }: Operation): object {
  const type = answers === "events" ? "text/event-stream" : JSON_TYPE;
  const schema = answers === "events" ? { type: "string" } : ANSWERS[answers];
  const body = takes === undefined ? {} : requestOf(takes);
  return {
    summary: about,
    ...body,
    responses: {
      200: { description: "done", content: { [type]: { schema } } },
      default: { description: "refused", content: { [JSON_TYPE]: { schema: ref("Error") } } },
    },
  };
}

function requestOf(takes: "spec" | "changes"): object {
  const dryRun = {
    ...{ name: "dry-run", in: "query", schema: { type: "string", enum: ["0", "1"] } },
    description: "1: shows the plan, and changes nothing",
  };
  const schema = takes === "spec" ? ref("Spec") : { ...ref("Spec"), description: "some fields" };
  return {
    parameters: [dryRun],
    requestBody: { required: true, content: { [JSON_TYPE]: { schema } } },
  };
}

const fieldSchema = (schema: Schema, about: string, byDefault: unknown) => ({
  ...schema,
  description: about,
  ...(typeof byDefault === "function" ? {} : { default: byDefault }),
});

const SPEC = {
  type: "object",
  additionalProperties: false,
  properties: Object.fromEntries(
    FIELD_NAMES.map((name) => {
      const { schema, about, default: byDefault } = fieldOf(name);
      return [name, fieldSchema(schema, about, byDefault)];
    }),
  ),
};

const ACTION = {
  type: "object",
  required: ["verb", "field", "from", "to"],
  properties: { verb: { type: "string" }, field: { enum: FIELD_NAMES }, from: {}, to: {} },
};

const NIC = {
  type: "object",
  required: ["name", "spec", "status", "generation"],
  properties: {
    name: { type: "string" },
    spec: ref("Spec"),
    status: { type: "object", description: "what `bpfhv status --json` prints" },
    generation: {
      type: "object",
      properties: { wanted: { type: "integer" }, running: { type: ["integer", "null"] } },
    },
  },
};

const ERROR = {
  type: "object",
  required: ["error"],
  properties: { error: { type: "string", description: "what is wrong, and what to do" } },
};

const SCHEMAS = { Spec: SPEC, Action: ACTION, Nic: NIC, Error: ERROR };

const actions = { type: "array", items: ref("Action") };
const ANSWERS: Readonly<Record<Exclude<Operation["answers"], "events">, object>> = {
  nic: ref("Nic"),
  plan: {
    oneOf: [
      { allOf: [ref("Nic"), { properties: { changed: actions } }] },
      { type: "object", required: ["plan"], properties: { plan: actions } },
    ],
  },
  nics: { type: "object", properties: { nics: { type: "array", items: { type: "object" } } } },
  openapi: { type: "object" },
};
