/** Offsets and first values of the control words of sring and sring_gso, host side. */
import type { ContextWords } from "../../memory/index.ts";
import type { RingConfig } from "../define.ts";
import { IndexControl, wordOf } from "../index-control.ts";
import { SRING } from "./layout.ts";

export const DESCRIPTORS = wordOf(SRING.size);

export function initialiseSring(direction: "rx" | "tx", words: ContextWords, bufs: number): void {
  words.set(wordOf(SRING.qmask), bufs - 1);
  words.set(wordOf(SRING.kick_enabled), 1);
  words.set(wordOf(SRING.intr), direction === "rx" ? 1 : 0);
  words.store(wordOf(SRING.cons), 0);
}

export function sringControl(direction: "rx" | "tx", config: RingConfig): IndexControl {
  const words = { ...SRING.fields, kick: SRING.kick_enabled };
  return direction === "rx"
    ? new IndexControl(config, words, { name: "sring.rxq", interrupt: "each" })
    : new IndexControl(config, words, {
        ...{ name: "sring.txq", intrName: "intr_at", interrupt: "slot" },
      });
}
