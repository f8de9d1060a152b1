/** Accesses to the BARs that the NIC serves itself: registers, doorbells, program window. */
import {
  BAR_DOORBELLS,
  BAR_PROGRAM,
  BAR_PROGRAM_SIZE,
  BAR_REGISTERS,
  BAR_REGISTERS_SIZE,
} from "../abi/index.ts";
import type { Nic } from "./nic.ts";
import { readProgram } from "./programs.ts";
import { readRegister, writeRegister } from "./register-table.ts";

/** Sizes are powers of two. */
export function barsOf({
  queues,
  config,
}: Nic): { readonly index: number; readonly size: number }[] {
  const doorbells = queues.length * config.doorbellSize;
  return [
    { index: BAR_REGISTERS, size: BAR_REGISTERS_SIZE },
    { index: BAR_DOORBELLS, size: Math.max(4096, 2 ** Math.ceil(Math.log2(doorbells))) },
    { index: BAR_PROGRAM, size: BAR_PROGRAM_SIZE },
  ];
}

/** Reads 1, 2 or 4 bytes inside the BAR, at any alignment. */
export function readBar(nic: Nic, bar: number, offset: number, size: number): number {
  if (bar === BAR_REGISTERS) return readRegisters(nic, offset, size);
  if (bar === BAR_PROGRAM) return readProgram(nic, offset, size);
  nic.refusals.add("doorbell", `read of doorbell at ${offset}: doorbells are write-only`);
  return 0;
}

/** Writes 1, 2 or 4 bytes inside the BAR, at any alignment. */
export function writeBar(nic: Nic, bar: number, offset: number, size: number, value: number): void {
  if (bar === BAR_DOORBELLS) return ringDoorbell(nic, Math.floor(offset / nic.config.doorbellSize));
  const at = `0x${offset.toString(16)}`;
  if (bar === BAR_PROGRAM) {
    nic.refusals.add("programWindow", `write to the program window at ${at}: it is read only`);
  } else if (size !== 4 || offset % 4 !== 0) {
    nic.refusals.add("register", `write of ${size} bytes to register ${at}: 4 are needed`);
  } else writeRegister(nic, offset, value >>> 0);
}

/** A narrow read gives bytes of the register that it starts in, and none of the next. */
function readRegisters(nic: Nic, offset: number, size: number): number {
  const within = offset % 4;
  const value = readRegister(nic, offset - within) >>> (8 * within);
  return size === 4 ? value >>> 0 : value & (size === 2 ? 0xffff : 0xff);
}

function ringDoorbell(nic: Nic, index: number): void {
  const queue = nic.queues[index];
  if (queue !== undefined) queue.kicked();
  else nic.refusals.add("doorbell", `doorbell of queue ${index} of ${nic.queues.length}`);
}
