/** Impossible register values: each makes a probe fail, whatever the other registers hold. */
import {
  ABILITY,
  BLOB_HEADER,
  MAX_CONTEXT_SIZE,
  MAX_QUEUE_BUFS,
  MAX_QUEUE_PAIRS,
  MIN_CONTEXT_SIZE,
  MIN_QUEUE_BUFS,
  REG,
} from "../../../../src/abi/index.ts";
import { OFFERED_ABILITIES } from "../../../../src/nic/negotiation.ts";

const ALL_ONES = 0xffffffff;

/** Register → its wrong value; "ignored": writes have no effect. */
export interface RegisterLie {
  readonly register: number;
  readonly value: number | "ignored";
}

const lies = (register: number, ...values: (number | "ignored")[]): RegisterLie[] =>
  values.map((value) => ({ register, value }));

export const REGISTER_LIES: readonly RegisterLie[] = [
  ...lies(REG.VERSION, 0, 2, 0x100, ALL_ONES),
  ...lies(REG.NUM_RX_QUEUES, 0, 2, MAX_QUEUE_PAIRS + 1, 0x80000001, ALL_ONES),
  ...lies(REG.NUM_TX_QUEUES, 0, 2, MAX_QUEUE_PAIRS + 1, 0x80000001, ALL_ONES),
  ...lies(REG.NUM_RX_BUFS, 0, MIN_QUEUE_BUFS - 1, MAX_QUEUE_BUFS + 1, ALL_ONES),
  ...lies(REG.NUM_TX_BUFS, 0, MIN_QUEUE_BUFS - 1, MAX_QUEUE_BUFS + 1, ALL_ONES),
  ...lies(REG.RX_CTX_SIZE, 0, 1, MIN_CONTEXT_SIZE - 1, MAX_CONTEXT_SIZE + 1, ALL_ONES),
  ...lies(REG.TX_CTX_SIZE, 0, 1, MIN_CONTEXT_SIZE - 1, MAX_CONTEXT_SIZE + 1, ALL_ONES),
  // Contexts that end at the programs' private area: the verifier detects accesses beyond.
  ...lies(REG.RX_CTX_SIZE, MIN_CONTEXT_SIZE),
  ...lies(REG.TX_CTX_SIZE, MIN_CONTEXT_SIZE),
  ...lies(REG.DOORBELL_SIZE, 0, 1, 3, 5, 4096, 0x80000000, ALL_ONES),
  ...lies(REG.BLOB_LEN, 0, BLOB_HEADER.size - 1, BLOB_HEADER.size, 0x80000000, ALL_ONES),
  // Without these, programs cannot be verified, and others must not run.
  ...lies(REG.EXT_ID, 0, 0x31585643, ALL_ONES),
  ...lies(
    REG.EXT_OFFER,
    0,
    OFFERED_ABILITIES & ~ABILITY.HELPERFREE,
    OFFERED_ABILITIES & ~ABILITY.CTX_PAGES,
  ),
  ...lies(REG.EXT_ACK, 0, 1),
  // Another set than the blob's.
  ...lies(REG.SET_CUR, 0, 7, ALL_ONES),
  // A blob that is never written.
  ...lies(REG.BLOB_HI, "ignored"),
];
