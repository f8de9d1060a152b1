/** Parsing of the words that describe ports and policies (`create.ts`, `policies/index.ts`). */

/** An invalid description of a port or policy; the message says what to write. */
export class PortSpecError extends Error {
  readonly code = "PORT";
  constructor(message: string) {
    super(message);
    this.name = "PortSpecError";
  }
}

/**
 * Reads `KEY=VALUE` words.
 * @param flags words without a value that the caller has taken out: for the message
 * @throws PortSpecError
 */
export function parseOptions(
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

/** @returns undefined if the option is not given. @throws PortSpecError */
export function wholeOption(
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

/** @returns an object that has the key only if the value is defined */
export function optional<K extends string, V>(key: K, value: V | undefined): { [k in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { [k in K]?: V };
}

/** @throws PortSpecError if there are words */
export function refuseOptions(kind: string, words: readonly string[]): void {
  if (words.length === 0) return;
  throw new PortSpecError(`net "${kind}:${words.join(",")}": ${kind} takes no options`);
}

/** @returns the six bytes of a MAC address such as 52:54:00:12:34:56; null if it is not one */
export function macBytes(text: string): Uint8Array | null {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return null;
  return Uint8Array.from(text.split(":"), (byte) => Number.parseInt(byte, 16));
}
