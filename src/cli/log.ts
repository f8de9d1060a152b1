/**
 * The log of a served NIC on standard error: text for people at a terminal, one line of JSON per
 * event otherwise.
 */
import { isatty } from "node:tty";
import { LineWriter } from "./line-writer.ts";
import { printable } from "./printable.ts";

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
  readonly #level: number;
  readonly #nic: string;
  readonly #text: boolean;
  readonly #writer: LineWriter;

  constructor({ level, nic, json }: LogOptions) {
    this.#level = LOG_LEVELS.indexOf(level);
    this.#nic = printable(nic);
    this.#text = isatty(STDERR) && !json;
    this.#writer = new LineWriter(STDERR, (lost) =>
      this.#line("warn", `${lost} lines of the log are lost here: its reader was too slow`),
    );
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
