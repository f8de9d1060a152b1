/** What the main thread and a worker send each other. Plain data. */

/**
 * A verb of the worker's table (worker.ts, `Served.verbs`) and what it needs: checked by the
 * sender. Each is answered by one `Reply`.
 */
export interface Request {
  readonly id: number;
  readonly verb: string;
  readonly body: unknown;
}

export interface Reply {
  readonly kind: "reply";
  readonly id: number;
  /** What the verb returned; undefined if it failed. */
  readonly result: unknown;
  /** Why nothing was changed; null if the verb succeeded. */
  readonly error: string | null;
}

export type ToMain =
  /** The loop runs from here on. */
  | { readonly kind: "ready" }
  /** Everything is released, and the thread ends. */
  | { readonly kind: "stopped" }
  | { readonly kind: "log"; readonly level: "info" | "warn"; readonly text: string }
  /** For standard output. */
  | { readonly kind: "print"; readonly text: string }
  | Reply
  | {
      readonly kind: "failed";
      readonly message: string;
      /** The error has a code, and its message says what to do; others are bugs: see `stack`. */
      readonly expected: boolean;
      readonly stack: string;
    };
