/** The host returned a buffer that was not outstanding, or a program failed. */
export class GuestError extends Error {
  readonly code = "GUEST";
  constructor(message: string) {
    super(message);
    this.name = "GuestError";
  }
}
