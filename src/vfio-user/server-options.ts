/** How a `VfioUserServer` is made. */
import type { SocketAccess } from "../os/unix-socket.ts";
import type { MessageJournal } from "./journal.ts";

export interface ServerOptions {
  /** Where to listen; without it clients come by `adopt` only. */
  readonly socketPath?: string;
  /** Who may connect; default: the user who listens. */
  readonly access?: SocketAccess;
  /** Connections and resets, for a log. */
  readonly log?: (message: string) => void;
  /** Warnings for the operator: `code` is stable. */
  readonly onWarning?: (code: string, message: string) => void;
  /** Delays every answer, in order: to test clients of a slow server. */
  readonly answerDelayMs?: number;
  /**
   * For a caller that calls `handleReadable` at least once a second. A request that may have waited
   * longer than this, because there was no call for so long, is executed and answered by an error
   * without data. Default: no limit.
   */
  readonly lateAfterMs?: number;
  /**
   * Disconnects a client that has not sent VERSION within this time: others wait behind it.
   * Default: 10 s.
   */
  readonly greetingMs?: number;
  /**
   * Uses guest memory in files that cannot be sealed, too: whoever shrinks one kills this process.
   */
  readonly allowUnsealed?: boolean;
  /** For another process that goes on after a crash of this one. */
  readonly journal?: MessageJournal;
}
