/** Ports from the words of the command line: `tap:NAME[,netns=NAMESPACE][,create]`, `sink`, `source`. */
import type { Port } from "./port.ts";
import { SinkPort, SourcePort } from "./synthetic.ts";
import { TapPort } from "./tap.ts";

/** A port as plain data, so that it can be sent to the worker that will open it. */
export type PortSpec =
  | {
      readonly kind: "tap";
      readonly tap: string;
      readonly netns?: string;
      readonly create: boolean;
    }
  | { readonly kind: "sink" }
  | { readonly kind: "source" };

export const PORT_KINDS = "tap:NAME[,netns=NAMESPACE][,create], sink, source";

/** @returns null where the text is not one of PORT_KINDS */
export function parsePort(text: string): PortSpec | null {
  if (text === "sink" || text === "source") return { kind: text };
  const [kind, ...options] = text.split(",");
  const tap = kind.startsWith("tap:") ? kind.slice(4) : "";
  if (tap === "") return null;
  let netns: string | undefined;
  let create = false;
  for (const option of options) {
    if (option === "create") create = true;
    else if (/^netns=./.test(option)) netns = option.slice(6);
    else return null;
  }
  return { kind: "tap", tap, create, ...(netns === undefined ? {} : { netns }) };
}

/** 60 bytes: broadcast, IPv4 10.0.0.1 to 10.1.0.1, UDP port 1234 to 1234. */
const SOURCE_FRAME = Uint8Array.from(
  Buffer.from(
    "ffffffffffff00000000000008004510002e000040004011269e0a0000010a010001" +
      "04d204d2001a00006e65746d617020706b742d67656e20444952",
    "hex",
  ),
);

/** Opens one port per queue pair. @throws OsError; what was opened before is closed again. */
export function openPorts(spec: PortSpec, pairs: number): Port[] {
  const ports: Port[] = [];
  try {
    while (ports.length < pairs) ports.push(openPort(spec, pairs > 1));
    return ports;
  } catch (error) {
    for (const port of ports) port.close();
    throw error;
  }
}

function openPort(spec: PortSpec, multiQueue: boolean): Port {
  if (spec.kind === "sink") return new SinkPort();
  if (spec.kind === "source") return new SourcePort(SOURCE_FRAME);
  const { tap, netns, create } = spec;
  return new TapPort({
    name: tap,
    vnetHeader: 0,
    offloads: 0,
    multiQueue,
    create,
    ...(netns === undefined ? {} : { netns }),
  });
}
