/** Ports from the words of the command line. */

import { LoopbackPort } from "./loopback.ts";
import { PcapPort } from "./pcap.ts";
import type { Port } from "./port.ts";
import { NullPort, SinkPort, SourcePort } from "./synthetic.ts";
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
  | { readonly kind: "null" }
  | { readonly kind: "loopback" }
  | {
      readonly kind: "source";
      readonly size?: number;
      readonly count?: number;
      readonly rate?: number;
      readonly numberAt?: number;
      readonly frame?: Uint8Array;
    }
  | { readonly kind: "pcap"; readonly write?: string; readonly replay?: string };

export const PORT_KINDS =
  "tap:NAME[,netns=NAMESPACE][,create], sink, null, loopback, " +
  "source[:size=BYTES,count=N,rate=PPS,content=HEX,number=OFFSET], pcap:[write=FILE][,replay=FILE]";

/** What is wrong with the words, for people. */
export class PortSpecError extends Error {
  readonly code = "PORT";
  constructor(message: string) {
    super(message);
    this.name = "PortSpecError";
  }
}

const MIN_FRAME = 14;
const MAX_FRAME = 65535;

/** @throws PortSpecError that says which word is wrong, and what it could be */
export function parsePort(text: string): PortSpec {
  const colon = text.indexOf(":");
  const kind = colon < 0 ? text : text.slice(0, colon);
  const rest = colon < 0 ? "" : text.slice(colon + 1);
  const words = rest === "" ? [] : rest.split(",");
  if (kind === "tap") return parseTap(words);
  if (kind === "source") return parseSource(words);
  if (kind === "pcap") return parsePcap(words);
  if (kind !== "sink" && kind !== "null" && kind !== "loopback") {
    throw new PortSpecError(`unknown net "${text}": use ${PORT_KINDS}`);
  }
  if (words.length > 0) throw new PortSpecError(`net "${text}": ${kind} takes no options`);
  return { kind };
}

function parseTap([tap = "", ...words]: string[]): PortSpec {
  if (tap === "" || tap.includes("=")) {
    throw new PortSpecError('net "tap": say which interface, as in tap:tap0');
  }
  const create = words.includes("create");
  const options = parseOptions(
    "tap",
    words.filter((word) => word !== "create"),
    ["netns"],
    ["create"],
  );
  const netns = options.get("netns");
  return { kind: "tap", tap, create, ...(netns === undefined ? {} : { netns }) };
}

function parseSource(words: string[]): PortSpec {
  const options = parseOptions("source", words, ["size", "count", "rate", "content", "number"]);
  const content = options.get("content");
  if (
    content !== undefined &&
    (!/^([0-9a-f]{2})+$/i.test(content) || content.length / 2 < MIN_FRAME)
  ) {
    throw new PortSpecError(`source: content: write at least ${MIN_FRAME} bytes in hexadecimal`);
  }
  const frame = content === undefined ? undefined : Uint8Array.from(Buffer.from(content, "hex"));
  const size = wholeOption(options, "size", MIN_FRAME, MAX_FRAME);
  const last = (size ?? frame?.length ?? 60) - 4;
  return {
    kind: "source",
    ...optional("frame", frame),
    ...optional("size", size),
    ...optional("count", wholeOption(options, "count", 0, Number.MAX_SAFE_INTEGER)),
    ...optional("rate", wholeOption(options, "rate", 1, 1e9)),
    ...optional("numberAt", wholeOption(options, "number", 0, last)),
  };
}

function parsePcap(words: string[]): PortSpec {
  const options = parseOptions("pcap", words, ["write", "replay"]);
  if (options.size === 0) {
    throw new PortSpecError('net "pcap": say what to do, as in pcap:write=out.pcap');
  }
  return {
    kind: "pcap",
    ...optional("write", options.get("write")),
    ...optional("replay", options.get("replay")),
  };
}

function optional<K extends string, V>(key: K, value: V | undefined): { [k in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { [k in K]?: V };
}

function parseOptions(
  kind: string,
  words: readonly string[],
  known: readonly string[],
  flags: readonly string[] = [],
): Map<string, string> {
  const options = new Map<string, string>();
  for (const word of words) {
    const [, key = "", value = ""] = /^([a-z]+)=(.+)$/.exec(word) ?? [];
    if (!known.includes(key)) {
      const list = [...known.map((name) => `${name}=VALUE`), ...flags].join(", ");
      throw new PortSpecError(`net "${kind}": unknown option "${word}": there are ${list}`);
    }
    if (options.has(key)) throw new PortSpecError(`net "${kind}": ${key} is given twice`);
    options.set(key, value);
  }
  return options;
}

function wholeOption(
  options: ReadonlyMap<string, string>,
  name: string,
  least: number,
  most: number,
): number | undefined {
  const text = options.get(name);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value <= most) return value;
  throw new PortSpecError(`${name}=${text}: use a whole number from ${least} to ${most}`);
}

/**
 * Opens one port per queue pair; `metadata`: the device knows offloads.
 * @throws OsError, PortSpecError; what was opened before is closed again.
 */
export function openPorts(spec: PortSpec, pairs: number, metadata: boolean): Port[] {
  if (spec.kind === "pcap" && pairs > 1) {
    throw new PortSpecError('net "pcap": one file for one queue pair');
  }
  const ports: Port[] = [];
  try {
    while (ports.length < pairs) ports.push(openPort(spec, pairs > 1, metadata));
    return ports;
  } catch (error) {
    for (const port of ports) port.close();
    throw error;
  }
}

function openPort(spec: PortSpec, multiQueue: boolean, metadata: boolean): Port {
  switch (spec.kind) {
    case "sink":
      return new SinkPort();
    case "null":
      return new NullPort();
    case "loopback":
      return new LoopbackPort("drop");
    case "source":
      return new SourcePort(spec);
    case "pcap":
      return new PcapPort(spec);
    case "tap": {
      const { tap, netns, create } = spec;
      return new TapPort({
        name: tap,
        vnetHeader: metadata ? 12 : 0,
        offloads: 0,
        multiQueue,
        create,
        ...(netns === undefined ? {} : { netns }),
      });
    }
  }
}
