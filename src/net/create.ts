/**
 * The kinds of ports. A new one is a file that exports a `PortKind`, and one line in this list.
 */
import { loopbackPort } from "./loopback.ts";
import { pcapPort } from "./pcap.ts";
import type { Port, PortKind } from "./port.ts";
import { nullPort, sinkPort, sourcePort } from "./synthetic.ts";
import { tapPort } from "./tap.ts";
import { PortSpecError } from "./words.ts";

export { PortSpecError };

const KINDS = [tapPort, sinkPort, nullPort, loopbackPort, sourcePort, pcapPort] as const;

/** A port as plain data, so that it can be sent to the worker that will open it. */
export type PortSpec = ReturnType<(typeof KINDS)[number]["parse"]>;

export const PORT_KINDS = KINDS.map(({ usage }) => usage).join(", ");

function kindOf(name: string): PortKind | undefined {
  return KINDS.find((kind) => kind.name === name);
}

/** @throws PortSpecError that names the invalid word and the valid ones */
export function parsePort(text: string): PortSpec {
  const [name, rest = ""] = text.split(/:(.*)/s);
  const kind = kindOf(name);
  if (kind === undefined) throw new PortSpecError(`unknown net "${text}": use ${PORT_KINDS}`);
  return kind.parse(rest === "" ? [] : rest.split(",")) as PortSpec;
}

/** See `PortKind`. */
export function continuing(spec: PortSpec): PortKind["continues"] {
  return kindOf(spec.kind)?.continues;
}

/**
 * Goes on with the ports of another process.
 * @param fds of each port; none for a kind that continues by itself
 * @throws OsError, PortSpecError; then the descriptors stay the caller's
 */
export function adoptPorts(spec: PortSpec, fds: readonly number[], metadata: boolean): Port[] {
  const kind = kindOf(spec.kind);
  const context = { multiQueue: fds.length > 1, metadata };
  return fds.map((fd) => {
    if (kind?.continues === "by itself" && fd < 0) return kind.open(spec, context);
    if (kind?.adopt !== undefined && fd >= 0) return kind.adopt(spec, context, fd);
    throw new PortSpecError(`net "${spec.kind}": another process cannot go on with it`);
  });
}

/**
 * Opens one port per queue pair.
 * @param metadata packets of the device carry offload metadata
 * @throws OsError, PortSpecError; what was opened before is closed again
 */
export function openPorts(spec: PortSpec, pairs: number, metadata: boolean): Port[] {
  const kind = kindOf(spec.kind);
  if (kind === undefined) throw new PortSpecError(`unknown net "${spec.kind}": use ${PORT_KINDS}`);
  const ports: Port[] = [];
  try {
    while (ports.length < pairs) ports.push(kind.open(spec, { multiQueue: pairs > 1, metadata }));
    return ports;
  } catch (error) {
    for (const port of ports) port.close();
    throw error;
  }
}
