/**
 * Limits how deeply a source nests, before it is parsed. Parser and compiler walk trees by
 * recursion, and a parser that exhausts the stack ends the process without a message. Tokens
 * suffice, as each level of a tree takes at least one.
 */

/** Limit of nested brackets. */
const MAX_DEPTH = 200;
/** Limit of tokens in one statement, not counting those in brackets. */
const MAX_TOKENS = 2000;

export interface TooDeep {
  readonly start: number;
  readonly end: number;
  readonly reason: string;
  readonly hint: string;
}

/** Skipped text, or text that counts as one token. */
const TOKEN = new RegExp(
  [
    /\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/,
    /"(?:[^"\\\n]|\\[\s\S])*|'(?:[^'\\\n]|\\[\s\S])*/,
    /[\w$]+|[^\s\w$]/,
  ]
    .map(({ source }) => source)
    .join("|"),
  "g",
);

/** Returns the first place that nests too deeply; null if there is none. */
export function tooDeep(text: string): TooDeep | null {
  /** Number of tokens of the statement at each depth. */
  const tokens = [0];
  /** The statement has ended, unless `else` follows. */
  let ended = false;
  TOKEN.lastIndex = 0;
  for (let match = TOKEN.exec(text); match !== null; match = TOKEN.exec(text)) {
    const [token] = match;
    if (token.startsWith("//") || token.startsWith("/*")) continue;
    const at = { start: match.index, end: match.index + token.length };
    if (")]}".includes(token)) {
      if (tokens.length > 1) tokens.pop();
      ended = token === "}";
      continue;
    }
    if (ended && token !== "else") tokens[tokens.length - 1] = 0;
    ended = token === ";" || token === ",";
    const count = ++tokens[tokens.length - 1]!;
    if (count > MAX_TOKENS) {
      const reason = `this statement has more than ${MAX_TOKENS} tokens`;
      return { ...at, reason, hint: "divide it into several" };
    }
    if (!"([{".includes(token)) continue;
    tokens.push(0);
    if (tokens.length <= MAX_DEPTH + 1) continue;
    const reason = `brackets nest more than ${MAX_DEPTH} deep`;
    return { ...at, reason, hint: "put what is inside into a local or a function" };
  }
  return null;
}
