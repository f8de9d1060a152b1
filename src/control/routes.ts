/**
 * The API: one table of paths and methods, from which requests are answered and OpenAPI is made.
 */
import { CommandError } from "../errors.ts";
import type { Events } from "./events.ts";
import { NicFailed } from "./handle.ts";
import { openApi } from "./open-api.ts";
import { type Action, ApplyFailed, ChangeRefused } from "./plan.ts";
import { printable } from "./printable.ts";
import { readSpec, SpecError } from "./read-spec.ts";
import type { RunningNic } from "./running-nic.ts";

/** What the API serves. */
export interface Served {
  /** Of bpfhv. */
  readonly version: string;
  /** All NICs of the process. */
  readonly nics: () => readonly RunningNic[];
  readonly events: Events;
  /** Hands all NICs over to the process that is connected; see `HandOver`. */
  readonly takeOver?: (fd: number) => void;
}

export interface ApiRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly body: string;
  /** The one whose control socket this is: /v1/nic. */
  readonly own: RunningNic;
}

export type ApiAnswer =
  | { readonly status: number; readonly body: unknown; readonly allow?: string }
  | { readonly events: Events };

/** A request that is refused. */
export class HttpError extends Error {
  readonly status: number;
  readonly details: Readonly<Record<string, unknown>>;
  constructor(status: number, message: string, details: Readonly<Record<string, unknown>> = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }
}

interface Call {
  readonly served: Served;
  readonly nic: RunningNic;
  readonly query: URLSearchParams;
  readonly body: string;
}

export interface Operation {
  readonly about: string;
  readonly takes?: "spec" | "changes";
  readonly answers: "nic" | "nics" | "plan" | "openapi" | "events";
  readonly run: (call: Call) => unknown;
}

export type Method = "GET" | "PUT" | "PATCH";
const ON_NIC: Readonly<Partial<Record<Method, Operation>>> = {
  GET: {
    about: "spec and status, with the wanted and the running generation of its programs",
    answers: "nic",
    run: ({ nic }) => nic.view(),
  },
  PUT: {
    about: "makes the NIC what the spec says; a field that is not given has its default",
    ...{ takes: "spec", answers: "plan" },
    run: (call) => change(call, (given) => call.nic.plan(given)),
  },
  PATCH: {
    about: "changes the fields that are given",
    ...{ takes: "changes", answers: "plan" },
    run: (call) => change(call, (given) => call.nic.planChange(given)),
  },
};

const NAME = "{name}";

export const ROUTES: Readonly<Record<string, Readonly<Partial<Record<Method, Operation>>>>> = {
  "/v1/nic": ON_NIC,
  "/v1/nics": {
    GET: {
      about: "all NICs of the process: name, socket, device, and why it failed if it has",
      answers: "nics",
      run: ({ served }) => ({
        nics: served.nics().map(({ spec: { name, socket, device }, failure }) => ({
          ...{ name, socket, device, state: failure === null ? "running" : "failed", failure },
        })),
      }),
    },
  },
  [`/v1/nics/${NAME}`]: ON_NIC,
  "/v1/events": {
    GET: {
      about: "what happens, as server-sent events: changed, log, ended",
      answers: "events",
      run: ({ served }) => served.events,
    },
  },
  "/v1/openapi.json": {
    GET: { about: "this API", answers: "openapi", run: ({ served }) => openApi(served.version) },
  },
};

/** Never rejects. */
export async function answerTo(request: ApiRequest, served: Served): Promise<ApiAnswer> {
  try {
    const url = urlOf(request.url);
    const [path, name] = pathOf(url.pathname);
    const operations = ROUTES[path];
    if (!isMethod(request.method) || operations[request.method] === undefined) {
      const allow = Object.keys(operations).join(", ");
      const body = { error: `${printable(request.method, 20)} ${path}: use ${allow}` };
      return { status: 405, body, allow };
    }
    const { run } = operations[request.method] as Operation;
    const nic = name === undefined ? request.own : nicOf(name, served);
    const result = await run({ served, nic, query: url.searchParams, body: request.body });
    return result === served.events ? { events: served.events } : { status: 200, body: result };
  } catch (error) {
    return refusalOf(error);
  }
}

function urlOf(text: string): URL {
  try {
    return new URL(text, "http://localhost");
  } catch {
    throw new HttpError(400, `${printable(text, 60)} is not a path`);
  }
}

/** @returns the path of ROUTES, and the NIC's name if it has one */
function pathOf(pathname: string): [path: string, name?: string] {
  if (Object.hasOwn(ROUTES, pathname)) return [pathname];
  const [, name] = /^\/v1\/nics\/([A-Za-z0-9._-]{1,64})$/.exec(pathname) ?? [];
  if (name !== undefined) return [`/v1/nics/${NAME}`, name];
  const paths = Object.keys(ROUTES);
  const error = `unknown path ${printable(pathname, 60)}: there are ${paths.join(", ")}`;
  throw new HttpError(404, error, { paths });
}

function isMethod(method: string): method is Method {
  return method === "GET" || method === "PUT" || method === "PATCH";
}

function nicOf(name: string, served: Served): RunningNic {
  const nic = served.nics().find((each) => each.spec.name === name);
  if (nic !== undefined) return nic;
  const nics = served.nics().map(({ spec }) => spec.name);
  throw new HttpError(404, `no NIC ${name}: there are ${nics.join(", ")}`, { nics });
}

/** A change, or what it would be. */
async function change(
  { nic, query, body }: Call,
  plan: (given: ReturnType<typeof readSpec>) => Action[],
): Promise<unknown> {
  const dryRun = isDryRun(query);
  const given = readSpec(parsed(body));
  if (dryRun) return { plan: plan(given) };
  const changed = await nic.apply(() => plan(given));
  return { changed, ...(await nic.view()) };
}

function isDryRun(query: URLSearchParams): boolean {
  for (const [key, value] of query) {
    if (key !== "dry-run" || !["", "0", "1"].includes(value)) {
      const given = printable(`${key}=${value}`, 60);
      throw new HttpError(400, `unknown query ${given}: there is dry-run=1`);
    }
  }
  return query.has("dry-run") && query.get("dry-run") !== "0";
}

function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch (error) {
    const what = body === "" ? "it is empty" : printable((error as Error).message, 100);
    throw new HttpError(400, `the body is not JSON: ${what}; send a spec such as {"mtu":1400}`);
  }
}

function refusalOf(error: unknown): ApiAnswer {
  const { message } = error as Error;
  const body = { error: printable(message) };
  if (error instanceof HttpError) {
    return { status: error.status, body: { ...body, ...error.details } };
  }
  if (error instanceof SpecError) return { status: 400, body: { ...body, ...problems(error) } };
  if (error instanceof ChangeRefused) {
    return { status: 409, body: { ...body, fields: error.fields } };
  }
  const hangs = error instanceof ApplyFailed && error.cause instanceof NicFailed;
  if (error instanceof CommandError && !hangs) return { status: 409, body };
  // The NIC's worker hangs, or has ended.
  return { status: 503, body };
}

function problems({ problems }: SpecError): object {
  return { problems: problems.map(({ path, problem }) => ({ path, problem })) };
}
