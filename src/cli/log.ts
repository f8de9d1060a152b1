/**
 * The log of a served NIC on standard error: text for people at a terminal, one line of JSON per
 * event otherwise.
 */
import { isatty } from "node:tty";
import { printable } from "../control/printable.ts";
import { LineWriter } from "./line-writer.ts";

/** From quiet to loud. */
export const LOG_LEVELS = ["silent", "error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
type LineLevel = Exclude<LogLevel, "silent">;

const STDERR = 2;
/** Room for a stack trace. */
const LONGEST = 4000;

export interface LogOptions {
  readonly level: LogLevel;
  /** Which NIC: the path of its socket. */
  readonly nic: string;
  /** JSON even to a terminal. */
  readonly json: boolean;
}

export class Log {
  readonly #options: LogOptions;
  readonly #level: number;
  readonly #nic: string;
  readonly #text: boolean;
  readonly #writer: LineWriter;

  /** @param writer of a log that this one is a part of */
  constructor(options: LogOptions, writer?: LineWriter) {
    const { level, nic, json } = options;
    this.#options = options;
    this.#level = LOG_LEVELS.indexOf(level);
    this.#nic = printable(nic);
    this.#text = isatty(STDERR) && !json;
    const lost = (lines: number) =>
      this.#line("warn", `${lines} lines of the log are lost here: its reader was too slow`);
    this.#writer = writer ?? new LineWriter(STDERR, lost);
  }

  /** The same log, with lines of another NIC. */
  of(nic: string): Log {
    return new Log({ ...this.#options, nic }, this.#writer);
  }

  error(text: string): void {
    this.#write("error", text);
  }

  warn(text: string): void {
    this.#write("warn", text);
  }

  info(text: string): void {
    this.#write("info", text);
  }

  debug(text: string): void {
    this.#write("debug", text);
  }

  close(): void {
    this.#writer.close();
  }

  #write(level: LineLevel, text: string): void {
    if (LOG_LEVELS.indexOf(level) <= this.#level) this.#writer.write(this.#line(level, text));
  }

  #line(level: LineLevel, text: string): string {
    const time = new Date();
    const msg = printable(text.replace(/\s*\n\s*/g, " | "), LONGEST);
    if (!this.#text) return `${JSON.stringify({ time, level, nic: this.#nic, msg })}\n`;
    const mark = level === "info" ? "" : `${level}: `;
    return `${time.toTimeString().slice(0, 8)} ${this.#nic}: ${mark}${msg}\n`;
  }
}
