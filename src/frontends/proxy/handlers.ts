/** Which method of a backend answers a request of the protocol. */
import type { ProxyBackend } from "./backend.ts";
import { type RequestName, RX_QUEUE, TX_QUEUE } from "./protocol.ts";

/** The outcome of a request. A refusal changes nothing. */
export type Reply =
  | { readonly refused: string }
  | {
      readonly payload?: Uint8Array;
      /** Sent with the reply, then closed. */
      readonly fd?: number;
    };

type Handler = (backend: ProxyBackend, payload: DataView, fds: number[]) => Reply;

export const HANDLERS: Readonly<Record<RequestName, Handler>> = {
  GET_FEATURES: (backend) => backend.getFeatures(),
  SET_FEATURES: (backend, payload) => backend.setFeatures(payload),
  SET_PARAMETERS: (backend, payload) => backend.setParameters(payload),
  GET_PROGRAMS: (backend) => backend.getPrograms(),
  SET_MEM_TABLE: (backend, payload, fds) => backend.setMemoryTable(payload, fds),
  SET_QUEUE_CTX: (backend, payload) => backend.setQueueContext(payload),
  SET_QUEUE_KICK: (backend, payload, fds) => backend.setQueueKick(payload, fds),
  SET_QUEUE_IRQ: (backend, payload, fds) => backend.setQueueIrq(payload, fds),
  SET_UPGRADE: (backend, _payload, fds) => backend.setUpgrade(fds),
  RX_ENABLE: (backend) => backend.enable(RX_QUEUE),
  TX_ENABLE: (backend) => backend.enable(TX_QUEUE),
  RX_DISABLE: (backend) => backend.disable(RX_QUEUE),
  TX_DISABLE: (backend) => backend.disable(TX_QUEUE),
};
