/** The host returned something that was not outstanding, or a program failed. */
export class GuestError extends Error {
  readonly code = "GUEST";
  constructor(message: string) {
    super(message);
    this.name = "GuestError";
  }
}
