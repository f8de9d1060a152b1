/**
 * Handing a NIC over to another process, and taking one over: state as a record, descriptors beside
 * it. Both ends are between two turns of their loops.
 */
import { type ClaimedFds, readRecord, type SavedFds } from "../memory/record.ts";
import type { Nic } from "../nic/nic.ts";
import { type NicRecord, restoreNic, saveNic } from "../nic/persist.ts";
import { fdTarget } from "../os/fd.ts";
import type { VfioUserServer } from "../vfio-user/index.ts";
import type { ServerRecord } from "../vfio-user/persist.ts";

export interface Transfer {
  /**
   * Returns the state; descriptors are added to `fds` and stay this NIC's.
   * @param crash for after a crash of this process; at any time, also while a message is handled
   * @throws RecordError if that is not possible now
   */
  save(fds: SavedFds, crash?: boolean): unknown;
  /**
   * Continues from such a state. Nothing is done to the guest's queues and to the client yet.
   * @param name of the record, for messages
   * @throws RecordError; then only `leave` may follow
   */
  restore(name: string, record: unknown, fds: ClaimedFds): void;
  /**
   * Restores such a state, with a NIC that exists for this only: a first time takes long, and shows
   * what cannot be restored. The guest's memory is mapped and not accessed. `leave` follows.
   * @throws RecordError
   */
  rehearse(name: string, record: unknown, fds: ClaimedFds): void;
  /** After `restore` of what a process that crashed has saved. @param executed see the journal */
  recover(executed: number): void;
  /** Releases everything without the client noticing: another process has it. */
  leave(): void;
}

export interface ServedNicRecord {
  readonly version: 1;
  /** Place of the listening socket. */
  readonly listener: number;
  readonly server: ServerRecord;
  readonly nic: NicRecord;
}

type RestoreParts = (
  name: string,
  value: unknown,
  fds: ClaimedFds,
  restoreNicPart: (record: unknown) => void,
) => void;

/** @param restored is called when the NIC has been restored */
export function nicTransfer(
  nic: Nic,
  server: VfioUserServer,
  socketPath: string,
  restored: () => void,
): Transfer {
  const restore: RestoreParts = (name, value, fds, restoreNicPart) => {
    readRecord(name, value, 1, (record) => {
      const listener = fds.claim(record, "listener");
      if (listener < 0 || !fdTarget(listener).startsWith("socket:")) {
        record.refuse("listener", "use the listening socket");
      }
      const parts = { server: record.inner("server"), nic: record.inner("nic") };
      server.listenOn(socketPath, listener);
      server.restore(parts.server, fds);
      restoreNicPart(parts.nic);
    });
  };
  return {
    save: (fds, crash = false): ServedNicRecord => {
      // Rings whose memory has gone are not served, by whoever restores them either.
      if (crash) nic.memoryChanged();
      return {
        version: 1,
        nic: saveNic(nic, crash),
        listener: fds.add(server.listeningFd),
        server: server.save(fds),
      };
    },
    restore: (name, value, fds) => {
      restore(name, value, fds, (record) => restoreNic(nic, record));
      restored();
    },
    rehearse: (name, value, fds) => {
      restore(name, value, fds, (record) => {
        // Another process serves the guest's rings: with bus mastering off none is attached.
        nic.busMasterChanged(false);
        const { state } = record as NicRecord;
        restoreNic(nic, { ...(record as NicRecord), state: { ...state, busMaster: false } });
      });
    },
    recover: (executed) => {
      server.recover(executed);
      for (const pair of nic.pairs) pair.interruptBoth();
      // The driver reads the event bits again.
      nic.raise(0);
    },
    leave: () => server.leave(),
  };
}
