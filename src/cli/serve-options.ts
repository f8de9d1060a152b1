/** The options of `bpfhv serve`: those of a NIC's spec from its table, and those of the process. */
import { type Command, Option } from "commander";
import { completeSpecs, readConfig } from "../control/config-file.ts";

import { readSpec } from "../control/read-spec.ts";
import { FIELD_NAMES, type FieldName, fieldOf, type NicSpec } from "../control/spec.ts";
import { Usage, whole } from "../errors.ts";
import type { LogLevel } from "./log.ts";
import { LOG_LEVELS } from "./log.ts";
import { SOCKET_GROUP, SOCKET_MODE } from "./socket-access.ts";

/** Those of the process. */
export interface ServeFlags {
  readonly config?: string;
  readonly bufs?: number;
  readonly logLevel: LogLevel;
  readonly logJson: boolean;
  readonly pidFile?: string;
  readonly user?: string;
  readonly socketGroup?: string;
  readonly socketMode?: string;
  readonly takeOver?: string;
}

/** Adds all of them. */
export function addServeOptions(command: Command): Command {
  command.option("--config <file>", "a NIC, or several, from a TOML file (docs/operating.md)");
  for (const name of FIELD_NAMES) command.addOption(fieldOption(name));
  return command
    .option("--take-over <socket>", "go on with the NICs of the server on this socket, which ends")
    .option("--bufs <n>", "sets --rx-bufs and --tx-bufs", whole("--bufs", 16, 8192))
    .option("--log-level <level>", LOG_LEVELS.join(", "), "info")
    .option("--log-json", "log JSON even to a terminal", false)
    .option("--pid-file <path>", "write the process id here; removed at the end")
    .option("--user <name>", "run as this user once TAP and sockets are open")
    .option("--socket-group <group>", SOCKET_GROUP)
    .option("--socket-mode <mode>", SOCKET_MODE);
}

function fieldOption(name: FieldName): Option {
  const { option, words, schema, hidden } = fieldOf(name);
  const result = new Option(option, helpOf(name));
  if (schema.type === "integer") {
    result.argParser(whole(option.split(" ", 1)[0], schema.minimum, schema.maximum));
  } else if (schema.type === "string" && schema.enum !== undefined) result.choices(schema.enum);
  else if (words !== undefined) result.argParser(words.read);
  return result.hideHelp(hidden === true);
}

function helpOf(name: FieldName): string {
  const { about, optionAbout = about, default: value, defaultWords, words, schema } = fieldOf(name);
  const range = schema.type === "integer" ? `, ${schema.minimum} to ${schema.maximum}` : "";
  if (defaultWords !== undefined) return `${optionAbout}${range} (default: ${defaultWords})`;
  const shown = words === undefined || typeof value === "function" ? value : words.write(value);
  const hasDefault = schema.type !== "boolean" && shown !== "";
  return `${optionAbout}${range}${hasDefault ? ` (default: ${shown})` : ""}`;
}

/** @throws Usage if NICs that are taken over are described, too */
export function refuseOthers(command: Command, flags: ServeFlags): void {
  const { config, socketGroup, socketMode } = flags;
  const others = { "--config": config, "--socket-group": socketGroup, "--socket-mode": socketMode };
  const [other] = Object.entries(others).find(([, value]) => value !== undefined) ?? [];
  const wrong = describing(command, flags) ?? other;
  if (wrong === undefined) return;
  const hint = "the NICs stay as they are; change them afterwards (bpfhv apply)";
  throw new Usage(`${wrong} does not go with --take-over: ${hint}`);
}

/** An option that was given and describes a NIC. */
function describing(command: Command, { bufs }: ServeFlags): string | undefined {
  const [name] = Object.keys(givenFields(command)) as FieldName[];
  if (name !== undefined) return fieldOf(name).option.split(" ", 1)[0];
  return bufs === undefined ? undefined : "--bufs";
}

/** The NICs that the command line describes, itself or by its file. @throws Usage */
export async function specsOf(command: Command, flags: ServeFlags): Promise<NicSpec[]> {
  const { config, bufs } = flags;
  const given = givenFields(command);
  if (config !== undefined) {
    const wrong = describing(command, flags);
    if (wrong !== undefined) throw new Usage(`${wrong} does not go with --config: see ${config}`);
    return completeSpecs(await readConfig(config));
  }
  if (given.socket === undefined) {
    throw new Usage("required option '--socket <path>' not specified (add --help for the options)");
  }
  const both = bufs === undefined ? {} : { rxBufs: bufs, txBufs: bufs };
  return completeSpecs([readSpec({ ...both, ...given })]);
}

function givenFields(command: Command): Partial<Record<FieldName, unknown>> {
  const fields: Partial<Record<FieldName, unknown>> = {};
  for (const name of FIELD_NAMES) {
    const key = new Option(fieldOf(name).option).attributeName();
    if (command.getOptionValueSource(key) === "cli") fields[name] = command.getOptionValue(key);
  }
  return fields;
}
