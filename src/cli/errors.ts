/** Errors of commands: one line that says what to do, and an exit status: 2 for usage, 1 for failure. */

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
    super(message, 2);
  }
}

/** It was called rightly, and could not be done. */
export function failure(message: string): CommandError {
  return new CommandError(message, 1);
}

/** A whole number from the command line. @throws Usage */
export function whole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new Usage(`"${text}" is not a whole number`);
  return Number(text);
}
