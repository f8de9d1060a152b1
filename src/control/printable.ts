/** Text of others on its way to a terminal or a log: no control characters, and an end. */

/**
 * Controls (with those of 8 bits), formats such as direction overrides, separators of lines, halves
 * of pairs.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;
const LONGEST = 1000;

/** `text` with "?" in place of every character that a terminal could take as a command. */
export function printable(text: string, longest = LONGEST): string {
  const cut = text.length > longest ? `${text.slice(0, longest)}...` : text;
  return cut.replace(UNPRINTABLE, "?");
}
