/** A failure told in one line that says what to do; the command ends with the status, and no stack is shown. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly code = "BPFHV_CLI";
  /** 2: the command was used wrongly; 1: something failed. */
  readonly status: 1 | 2;

  constructor(message: string, status: 1 | 2 = 1) {
    super(message);
    this.status = status;
  }
}
