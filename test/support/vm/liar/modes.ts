/**
 * Modes of a misbehaving host, selected by the test, and its counts of
 * lies: words shared with the host's thread.
 */

export const MODES = [
  "honest",
  /** One impossible register per probe. */
  "impossible registers",
  /** Any read may return anything, and any write may be lost. */
  "random registers",
  /** Program sets that must be refused. */
  "forbidden programs",
  /** A program that runs for as long as the kernel's limit for any program allows. */
  "long programs",
  /** An upgrade to programs that take the kernel's verifier seconds, and that it accepts. */
  "slow programs",
  /** Program sets with flipped bits. */
  "flipped programs",
  /** Programs that the verifier accepts and that lie. */
  "lying programs",
  /** Corrupted contexts, and interrupts without work. */
  "rings",
  /** Only interrupts without work. */
  "interrupts",
  /** Offers no features, and then all again: an upgrade each time. */
  "no features",
  /** Consecutive upgrades. */
  "upgrade storm",
  /** Upgrades to sets of all the modes above. */
  "bad upgrades",
  /** Every read returns all ones, writes are lost, and it stops. */
  "gone",
  /** The same, but it runs on. */
  "unreachable",
  /** Never completes what the guest sends. */
  "silence",
  /** Answers no read, and does nothing else that the guest requests. */
  "mute",
  /** Ships no programs: fetching them fails. */
  "no programs",
  /** Does not let itself be enabled. */
  "no enable",
] as const;

export type Mode = (typeof MODES)[number];

/** Words of the shared array. */
export const MODE = 0;
export const STOP = 1;
/** Number of lies, by mode, from here on. */
export const TOLD = 8;
export const SHARED_BYTES = 4 * (TOLD + MODES.length);
