#!/usr/bin/env node
/** The command `bpfhv`. One file per sub-command beside this one. */
import "./node-version.ts";
import { nicWorker } from "../control/waiting-worker.ts";
import { report } from "../errors.ts";

// Node's own handler opens its debugger to every local account. Worker threads have none.
process.on("SIGUSR1", () => {});
// Whatever escapes a command; what it made is removed by its "exit" handlers.
for (const event of ["uncaughtException", "unhandledRejection"]) {
  process.on(event, (error) => process.exit(report(error)));
}
// `bpfhv top | head -1`: whoever read has what it wanted.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? process.exitCode : report(error));
});
process.stderr.on("error", () => {});

// Before the commands: it loads as many modules as this thread does.
const worker = process.argv[2] === "serve" ? nicWorker() : undefined;
const { runCommandLine } = await import("./command-line.ts");

const { version } = await import("./version.ts");

const status = await runCommandLine(process.argv.slice(2), version, worker);
if (status !== undefined) process.exitCode = status;
// What was wrong with the command line may be known sooner than the worker is loaded.
worker?.waitUntilLoaded();
