#!/usr/bin/env node
/** The command `bpfhv`. One file per sub-command beside this one. */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { backendCommand } from "./backend.ts";
import { compileCommand } from "./compile.ts";
import { conformanceCommand } from "./conformance.ts";
import { disasmCommand } from "./disasm.ts";
import { driveCommand } from "./drive.ts";
import { CommandError } from "./errors.ts";
import { runCommand } from "./run.ts";
import { serveCommand } from "./serve.ts";
import { setPortCommand } from "./set-port.ts";
import { statusCommand } from "./status.ts";
import { topCommand } from "./top.ts";
import { verifyCommand } from "./verify.ts";
import { vmCommand } from "./vm.ts";

const { version } = JSON.parse(
  readFileSync(new URL("../../../package.json", import.meta.url), "utf8"),
) as { version: string };

function program(): Command {
  const command = new Command("bpfhv")
    .description("a virtual NIC whose guest datapath is eBPF programs shipped by the host")
    .version(version);
  const commands = [
    serveCommand(),
    statusCommand(),
    setPortCommand(),
    vmCommand(),
    topCommand(),
    compileCommand(),
    conformanceCommand(),
    disasmCommand(),
    runCommand(),
    verifyCommand(),
    backendCommand(),
    driveCommand(),
  ];
  for (const sub of commands) command.addCommand(sub);
  // Commander ends the process itself with 1 for usage errors; ours is 2.
  for (const each of [command, ...command.commands]) {
    each.exitOverride().showHelpAfterError("(add --help for the options)");
  }
  return command;
}

try {
  await program().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else if (error instanceof CommandError) {
    process.stderr.write(`bpfhv: ${error.message}\n`);
    process.exitCode = error.status;
  } else throw error;
}
