/** The NIC's registers as a driver uses them, and the programs that it fetches through them. */
import {
  BAR_PROGRAM,
  BAR_REGISTERS,
  MAX_PROGRAM_ID,
  type ProgramId,
  type ProgramSet,
  parseBlob,
  programSetProblem,
  REG,
} from "../abi/index.ts";
import { GuestError } from "./errors.ts";
import type { LocalMemory } from "./memory.ts";

/**
 * Aligned 32-bit accesses to the NIC's BARs. A write has taken effect when a later read returns.
 */
export interface NicTransport {
  read(bar: number, offset: number): number;
  write(bar: number, offset: number, value: number): void;
}

export class Registers {
  readonly transport: NicTransport;
  readonly #memory: LocalMemory;

  constructor(transport: NicTransport, memory: LocalMemory) {
    this.transport = transport;
    this.#memory = memory;
  }

  read(register: number): number {
    return this.transport.read(BAR_REGISTERS, register);
  }

  write(register: number, value: number): void {
    this.transport.write(BAR_REGISTERS, register, value >>> 0);
  }

  /** Writes, and waits until that has taken effect. */
  writeSync(register: number, value: number): void {
    this.write(register, value);
    void this.read(REG.STATUS);
  }

  writeAddress(low: number, address: number): void {
    this.write(low, address % 2 ** 32);
    this.writeSync(low + 4, Math.floor(address / 2 ** 32));
  }

  readMac(): Uint8Array {
    const mac = new Uint8Array(6);
    const view = new DataView(mac.buffer);
    view.setUint16(0, this.read(REG.MAC_HI));
    view.setUint32(2, this.read(REG.MAC_LO));
    return mac;
  }

  /** Fetches all programs at once (ability BLOB). */
  fetchBlob(): ProgramSet {
    const length = this.read(REG.BLOB_LEN);
    const address = this.#memory.allocate(length);
    this.writeAddress(REG.BLOB_LO, address);
    const code = parseBlob(this.#memory.bytes(address, length).slice());
    this.#memory.release(address, length);
    if (code === undefined) throw new GuestError("program blob: wrong length, bounds or SHA-256");
    return checked({ form: "helperfree", code });
  }

  /** Fetches programs one by one, as version 1 has it. */
  fetchWindow(): ProgramSet {
    const code = new Map<ProgramId, Uint8Array>();
    for (let id = 1; id <= MAX_PROGRAM_ID; id++) {
      this.write(REG.PROG_SELECT, id);
      const words = this.read(REG.PROG_SIZE) * 2;
      if (words === 0) continue;
      const program = Uint32Array.from({ length: words }, (_, i) =>
        this.transport.read(BAR_PROGRAM, 4 * i),
      );
      code.set(id as ProgramId, new Uint8Array(program.buffer));
    }
    return checked({ form: "v1", code });
  }
}

function checked(set: ProgramSet): ProgramSet {
  const problem = programSetProblem(set);
  if (problem !== null) throw new GuestError(problem);
  return set;
}
