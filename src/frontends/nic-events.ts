/**
 * What happens to a NIC, as lines for the log: it is looked at after messages, and nothing is
 * logged by the NIC.
 */
import type { Nic } from "../nic/nic.ts";
import type { HandshakeStep } from "../nic/state.ts";
import { programsOf } from "../nic/status.ts";

const STEPS: Partial<Record<HandshakeStep, string>> = {
  "driver found the device": "the guest's driver found the NIC",
  "programs fetched": "the guest fetched the programs",
};

export class NicEvents {
  readonly #nic: Nic;
  readonly #log: (level: "info" | "warn", text: string) => void;
  #step: HandshakeStep;
  #resets: number;
  #linkUp: boolean;

  constructor(nic: Nic, log: (level: "info" | "warn", text: string) => void) {
    this.#nic = nic;
    this.#log = log;
    this.#step = nic.step;
    this.#resets = nic.resets;
    this.#linkUp = nic.link.up;
  }

  /** After the NIC was restored: what it is by now has been logged by another process. */
  skip(): void {
    this.#step = this.#nic.step;
    this.#resets = this.#nic.resets;
    this.#linkUp = this.#nic.link.up;
  }

  /** After messages, which may be many a second: nothing is allocated if nothing has happened. */
  look(): void {
    const { step, resets } = this.#nic;
    if (step === this.#step && resets === this.#resets) return;
    // One that no driver had found has nothing to lose; of one whose client has gone, the log says
    // that.
    const hadDriver = this.#step !== "no guest" && this.#step !== "guest attached";
    if (hadDriver && step === "guest attached") this.#log("info", "the NIC was reset");
    this.#resets = resets;
    if (step !== this.#step) this.#stepped(step);
    this.lookAtLink();
  }

  #stepped(step: HandshakeStep): void {
    this.#step = step;
    const text = step === "enabled" ? this.#enabled() : STEPS[step];
    if (text !== undefined) this.#log("info", text);
  }

  #enabled(): string {
    const { id } = this.#nic.running;
    const proved = programsOf(this.#nic) === "verified" ? "verified by" : "not verified by";
    return `the guest enabled the NIC: programs of set ${id} ${proved} its kernel`;
  }

  /** Also when no message came: the port's end may have gone. */
  lookAtLink(): void {
    const { up } = this.#nic.link;
    if (up === this.#linkUp) return;
    this.#linkUp = up;
    this.#log("info", `link ${up ? "up" : "down"}`);
  }
}
