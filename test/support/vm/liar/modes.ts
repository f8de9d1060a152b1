/**
 * What a lying host does, chosen by the test, and how often it did: words shared with the host's
 * thread.
 */

export const MODES = [
  "honest",
  /** One impossible register per probe. */
  "impossible registers",
  /** Any read may give anything, and any write may be lost. */
  "random registers",
  /** Program sets that must be refused. */
  "forbidden programs",
  /** Program sets with bits turned over. */
  "flipped programs",
  /** Programs that the verifier accepts, and that lie. */
  "lying programs",
  /** Contexts scribbled on, interrupts without work. */
  "rings",
  /** Interrupts without work, only. */
  "interrupts",
  /** Offers no features from here on, and then all again: an upgrade each time. */
  "no features",
  /** One upgrade after the other. */
  "upgrade storm",
  /** Upgrades to sets of all the kinds above. */
  "bad upgrades",
  /** Every read gives all ones. */
  "gone",
  /** Nothing that the guest sends is ever completed. */
  "silence",
  /** No read is answered, nor anything else done that the guest asks for. */
  "mute",
] as const;

export type Mode = (typeof MODES)[number];

/** Words of the shared array. */
export const MODE = 0;
export const STOP = 1;
/** Lies told, by mode, from here on. */
export const TOLD = 8;
export const SHARED_BYTES = 4 * (TOLD + MODES.length);
