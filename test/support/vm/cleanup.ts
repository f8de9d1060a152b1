/**
 * Things to undo when this process ends in whatever way it can still notice. QEMU itself dies with
 * its parent.
 */

const actions = new Set<() => void>();
let installed = false;

/**
 * Registers synchronous clean-up for the case that the orderly one is never reached; returns its
 * withdrawal.
 */
export function onExit(action: () => void): () => void {
  install();
  actions.add(action);
  return () => actions.delete(action);
}

function install(): void {
  if (installed) return;
  installed = true;
  process.on("exit", runAll);
  for (const [signal, number] of [
    ["SIGINT", 2],
    ["SIGTERM", 15],
    ["SIGHUP", 1],
  ] as const) {
    // Not once: whoever runs this process may send a second one while it cleans up.
    process.on(signal, () => process.exit(128 + number));
  }
}

function runAll(): void {
  for (const action of [...actions].reverse()) {
    try {
      action();
    } catch {
      // The others still have their turn.
    }
  }
  actions.clear();
}
