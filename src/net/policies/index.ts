/**
 * The kinds of policies. A new one is a file that exports a `PolicyKind`, and one line in this
 * list; see README.md.
 */
import type { QueueCounters } from "../../memory/counters.ts";
import type { Port } from "../port.ts";
import { PortSpecError } from "../words.ts";
import type { AnyPolicySpec, PolicyContext, PolicyKind } from "./policy.ts";
import { antiSpoof } from "./spoof-guard.ts";

const KINDS = [antiSpoof] as const;

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

/**
 * Puts policies in front of a port, in the order of the list: the first one sees what the guest
 * sends first, and what it receives last.
 * @param counters of the transmit queue
 * @throws PortSpecError
 */
export function openPolicies<S extends AnyPolicySpec>(
  specs: readonly S[],
  port: Port,
  counters: QueueCounters,
  kinds: readonly PolicyKind[] = KINDS,
): Port {
  const found = specs.map((spec) => kindOf(spec.kind, kinds));
  return found.reduceRight((inner, kind, i) => kind.open(specs[i], inner, counters), port);
}
