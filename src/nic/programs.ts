/** Programs as the guest fetches them: one by one through the program window, or all as a blob. */
import { MAX_PROGRAM_ID, type ProgramId } from "../abi/index.ts";
import { whyRefused, writeGuest } from "../memory/index.ts";
import { shownSet } from "./negotiation.ts";
import type { Nic } from "./nic.ts";

function selectedCode(nic: Nic): Uint8Array | undefined {
  const { form, state } = nic;
  return shownSet(nic)
    ?.programs(form)
    .code.get(state.programSelect as ProgramId);
}

/** Bytes of the blob of the set that is shown. */
export function blobLength(nic: Nic): number {
  return shownSet(nic)?.blob(nic.form).length ?? 0;
}

export function selectProgram(nic: Nic, id: number): void {
  if (id > MAX_PROGRAM_ID) {
    return nic.refusals.add("register", `program ${id} selected: there are ${MAX_PROGRAM_ID}`);
  }
  nic.state.programSelect = id;
  if (id !== 0 && nic.step === "driver found the device") nic.step = "programs fetched";
}

/** Instructions of the selected program. */
export function programSize(nic: Nic): number {
  return (selectedCode(nic)?.length ?? 0) / 8;
}

/** Reads the program window: the selected program's instructions, then zeros. */
export function readProgram(nic: Nic, offset: number, size: number): number {
  const code = selectedCode(nic);
  if (code === undefined) return 0;
  let value = 0;
  for (let i = size - 1; i >= 0; i--) value = value * 256 + (code[offset + i] ?? 0);
  return value;
}

/** Writes the blob of all programs to guest memory. */
export function deliverBlob(nic: Nic, address: number): void {
  const { memory, refusals, upgrade } = nic;
  const blob = shownSet(nic)?.blob(nic.form);
  if (memory === null) {
    refusals.add("blob", "blob requested without bus mastering");
  } else if (blob === undefined) {
    refusals.add("blob", "blob requested of a set that is not staged");
  } else if (writeGuest(memory, address, blob)) {
    if (upgrade.view === 0) nic.step = "programs fetched";
  } else {
    const why = whyRefused(memory, address, blob.length, true);
    refusals.add("blob", `blob address 0x${address.toString(16)}: ${why}`);
  }
}
