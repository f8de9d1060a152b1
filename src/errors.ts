/**
 * Errors of commands: one line that says what to do, and an exit status: 2 for usage, 1 for
 * failure, 70 for a bug.
 */

export const STATUS = { failure: 1, usage: 2, bug: 70 } as const;

export class CommandError extends Error {
  readonly status: number;
  constructor(message: string, status: number) {
    super(message);
    this.name = "CommandError";
    this.status = status;
  }
}

/** The command was called wrongly. */
export class Usage extends CommandError {
  constructor(message: string) {
    super(message, STATUS.usage);
  }
}

/** It was called rightly, and could not be done. */
export function failure(message: string): CommandError {
  return new CommandError(message, STATUS.failure);
}

/** Parser of an option's whole number, `low` to `high`. It throws Usage. */
export function whole(option: string, low: number, high: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d{1,15}$/.test(text) && value >= low && value <= high) return value;
    throw new Usage(`${option} ${text}: use a whole number from ${low} to ${high}`);
  };
}

/** What an error means to whoever started the command: a line, and the exit status. */
export function judge(error: unknown): { readonly line: string; readonly status: number } {
  if (error instanceof CommandError) return { line: error.message, status: error.status };
  const { message, code } = error as NodeJS.ErrnoException;
  // A refusal of the operating system, or one of our errors that name a refused value.
  if (error instanceof Error && typeof code === "string" && !code.startsWith("ERR_")) {
    return { line: message, status: STATUS.failure };
  }
  const what = error instanceof Error ? `${error.name}: ${message}` : String(error);
  return {
    line: `internal error: ${what.split("\n", 1)[0]} (a bug: BPFHV_TRACE=1 shows where; report it)`,
    status: STATUS.bug,
  };
}

/** Prints the line, with BPFHV_TRACE=1 the trace behind it. @returns the exit status */
export function report(error: unknown): number {
  const { line, status } = judge(error);
  process.stderr.write(`bpfhv: ${line}\n`);
  if (process.env.BPFHV_TRACE === "1" && error instanceof Error) {
    process.stderr.write(`${error.stack}\n`);
  }
  return status;
}
