/**
 * The kinds of policies. A new one is a file that exports a `PolicyKind`, and one line in this
 * list; see README.md.
 */
import { readRecord } from "../../memory/record.ts";
import type { Port } from "../port.ts";
import { PortSpecError } from "../words.ts";
import type {
  AnyPolicySpec,
  PairCounters,
  PolicyContext,
  PolicyKind,
  PolicyPort,
} from "./policy.ts";
import { rateLimit } from "./rate-limit.ts";
import { antiSpoof } from "./spoof-guard.ts";

const KINDS = [antiSpoof, rateLimit] as const;

/** A policy as plain data, so that it can be sent to the worker that will open it. */
export type PolicySpec = ReturnType<(typeof KINDS)[number]["parse"]>;

export const POLICY_KINDS = KINDS.map(({ usage }) => usage).join(", ");

function kindOf(name: string, kinds: readonly PolicyKind[]): PolicyKind {
  const kind = kinds.find((each) => each.name === name);
  if (kind !== undefined) return kind;
  throw new PortSpecError(`unknown policy "${name}": use ${POLICY_KINDS}`);
}

/** Reads `NAME:RULES`, as in `anti-spoof:mac,vlan=10`. @throws PortSpecError */
export function parsePolicy(text: string, context: PolicyContext): PolicySpec {
  const [name, rules = ""] = text.split(/:(.*)/s);
  return kindOf(name, KINDS).parse(rules, context) as PolicySpec;
}

/** State of the policies of one port. */
export interface PoliciesRecord {
  readonly version: 1;
  /** As in the list of the options. */
  readonly policies: readonly { readonly kind: string; readonly state: unknown }[];
}

/** Policies in front of a port. */
export interface OpenPolicies {
  /** The first policy; the port itself if there are none. */
  readonly port: Port;
  save(): PoliciesRecord;
  /**
   * Checks a record of the same list of policies.
   * @returns the function that restores it, which does not fail
   * @throws RecordError
   */
  prepare(name: string, value: unknown): () => void;
  /** Releases the policies, and not the port. */
  release(): void;
}

/** What the policies of a list share among a NIC's queue pairs. */
export type SharedState = ReadonlyMap<string, unknown>;

/** @param before what the policies shared that these replace */
export function shareState<S extends AnyPolicySpec>(
  specs: readonly S[],
  before: SharedState = new Map(),
  kinds: readonly PolicyKind[] = KINDS,
): SharedState {
  const shared = new Map<string, unknown>();
  for (const [i, spec] of specs.entries()) {
    const key = keyOf(specs, i);
    shared.set(key, kindOf(spec.kind, kinds).share?.(spec, before.get(key)));
  }
  return shared;
}

/** A list may have a kind more than once. */
function keyOf(specs: readonly AnyPolicySpec[], i: number): string {
  const { kind } = specs[i];
  return `${kind} ${specs.slice(0, i).filter((each) => each.kind === kind).length}`;
}

/**
 * Puts policies in front of a port, in the order of the list: the first one sees what the guest
 * sends first, and what it receives last.
 * @param options `shared`: of `shareState`, the same for all queue pairs of the NIC
 * @throws PortSpecError
 */
export function openPolicies<S extends AnyPolicySpec>(
  specs: readonly S[],
  port: Port,
  counters: PairCounters,
  options: { readonly kinds?: readonly PolicyKind[]; readonly shared?: SharedState } = {},
): OpenPolicies {
  const { kinds = KINDS, shared = shareState(specs, undefined, kinds) } = options;
  const found = specs.map((spec) => kindOf(spec.kind, kinds));
  const open: { readonly kind: string; readonly policy: PolicyPort }[] = [];
  for (const [i, spec] of [...specs.entries()].reverse()) {
    const behind = open[0]?.policy ?? port;
    const policy = found[i].open(spec, behind, counters, shared.get(keyOf(specs, i)));
    open.unshift({ kind: spec.kind, policy });
  }
  return {
    port: open[0]?.policy ?? port,
    save: () => ({
      version: 1,
      policies: open.map(({ kind, policy }) => ({ kind, state: policy.save() })),
    }),
    prepare: (name, value) => preparePolicies(name, value, open),
    release: () => {
      for (const { policy } of open) policy.release();
    },
  };
}

function preparePolicies(
  name: string,
  value: unknown,
  open: readonly { readonly kind: string; readonly policy: PolicyPort }[],
): () => void {
  const commits = readRecord(name, value, 1, (record) => {
    const states = record.list("policies", open.length, (item) => ({
      kind: item.text("kind", 64),
      path: `${item.path}.state`,
      state: item.inner("state"),
    }));
    const kinds = open.map(({ kind }) => kind);
    if (states.map(({ kind }) => kind).join() !== kinds.join()) {
      record.refuse("policies", `use ${kinds.join(", ") || "none"}`);
    }
    return states.map(({ path, state }, i) => open[i].policy.prepare(path, state));
  });
  return () => {
    for (const commit of commits) commit();
  };
}
