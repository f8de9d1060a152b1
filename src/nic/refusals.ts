/** Accesses and requests of the guest that the NIC refused: counted, with the latest message. */
export const REFUSAL_REASONS = [
  "register",
  "doorbell",
  "programWindow",
  "context",
  "blob",
  "features",
  "enable",
  "upgrade",
  "filter",
  "rss",
] as const;
export type RefusalReason = (typeof REFUSAL_REASONS)[number];

export class Refusals {
  readonly counts: Record<RefusalReason, number> = {
    register: 0,
    doorbell: 0,
    programWindow: 0,
    context: 0,
    blob: 0,
    features: 0,
    enable: 0,
    upgrade: 0,
    filter: 0,
    rss: 0,
  };
  /** Of the guest that is attached, or was: the first is often the cause of the others. */
  first = "";
  last = "";
  /** The latest of each reason. */
  readonly latest: Partial<Record<RefusalReason, string>> = {};

  add(reason: RefusalReason, message: string): void {
    this.counts[reason]++;
    if (this.first === "") this.first = message;
    this.last = message;
    this.latest[reason] = message;
  }

  /** Another guest is attached. Counters go on. */
  forgetMessages(): void {
    this.first = "";
    this.last = "";
  }
}
