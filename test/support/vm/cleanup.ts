/** Clean-up when this process ends in any way that it can handle. QEMU ends with its parent. */

const actions = new Set<() => void>();
let installed = false;

/** Registers synchronous clean-up for an early exit. Returns a function that cancels it. */
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
    // Not `once`: the parent may send a second signal during the clean-up.
    process.on(signal, () => process.exit(128 + number));
  }
}

function runAll(): void {
  for (const action of [...actions].reverse()) {
    try {
      action();
    } catch {
      // The other actions still run.
    }
  }
  actions.clear();
}
