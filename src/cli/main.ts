#!/usr/bin/env node
/** The command `bpfhv`. One file per sub-command beside this one. */
import "./node-version.ts";
import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { nicWorker } from "../frontends/waiting-worker.ts";
import { CommandError } from "./errors.ts";

// First of all: it loads as many modules as this thread does.
const worker = process.argv[2] === "serve" ? nicWorker() : undefined;
const { Command: Program, CommanderError } = await import("commander");

const { version } = JSON.parse(
  readFileSync(new URL("../../../package.json", import.meta.url), "utf8"),
) as { version: string };

/** Loaded one by one: a NIC is not to wait for the compiler's or the backend's commands. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  serve: async () => (await import("./serve.ts")).serveCommand(worker),
  status: async () => (await import("./status.ts")).statusCommand(),
  "set-port": async () => (await import("./set-port.ts")).setPortCommand(),
  "set-mtu": async () => (await import("./set-mtu.ts")).setMtuCommand(),
  vm: async () => (await import("./vm.ts")).vmCommand(),
  top: async () => (await import("./top.ts")).topCommand(),
  compile: async () => (await import("./compile.ts")).compileCommand(),
  conformance: async () => (await import("./conformance.ts")).conformanceCommand(),
  disasm: async () => (await import("./disasm.ts")).disasmCommand(),
  run: async () => (await import("./run.ts")).runCommand(),
  verify: async () => (await import("./verify.ts")).verifyCommand(),
  backend: async () => (await import("./backend.ts")).backendCommand(),
  drive: async () => (await import("./drive.ts")).driveCommand(),
};

async function program(wanted: string | undefined): Promise<Command> {
  const command = new Program("bpfhv")
    .description("a virtual NIC whose guest datapath is eBPF programs shipped by the host")
    .version(version);
  const names =
    wanted !== undefined && Object.hasOwn(COMMANDS, wanted) ? [wanted] : Object.keys(COMMANDS);
  const commands = await Promise.all(names.map((name) => COMMANDS[name]()));
  for (const sub of commands) command.addCommand(sub);
  // Commander ends the process itself with 1 for usage errors; ours is 2.
  for (const each of [command, ...command.commands]) {
    each.exitOverride().showHelpAfterError("(add --help for the options)");
  }
  return command;
}

try {
  const command = await program(process.argv[2]);
  await command.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else if (error instanceof CommandError) {
    process.stderr.write(`bpfhv: ${error.message}\n`);
    process.exitCode = error.status;
  } else throw error;
}
