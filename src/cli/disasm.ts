/** `bpfhv disasm`: the instructions of programs, from objects, hexadecimal, text or raw bytes. */
import { Command, Option } from "commander";
import { EbpfError } from "../ebpf/errors.ts";
import { decodeProgram } from "../ebpf/instruction.ts";
import type { Program, SourceLine } from "../ebpf/program.ts";
import { disassembleProgram, formatInstruction } from "../ebpf/text.ts";
import { failure } from "../errors.ts";
import { FORMATS, type InputOptions, readPrograms } from "./program-input.ts";

interface DisasmFlags extends InputOptions {
  source: boolean;
  json: boolean;
}

export function disasmCommand(): Command {
  return new Command("disasm")
    .description("show the instructions of programs; what it prints assembles to the same bytes")
    .argument(
      "<file>",
      "an ELF object, or one program in hexadecimal, text or raw bytes; - is stdin",
    )
    .option("--section <name>", "of an object, this section or function alone")
    .addOption(new Option("--format <name>", "default: by content").choices(FORMATS))
    .option("--source", "with the source lines that the instructions come from", false)
    .option("--json", "as JSON", false)
    .action((file: string, flags: DisasmFlags) => {
      const problems: string[] = [];
      const programs = readPrograms(file, { ...flags, problem: (m) => problems.push(m) });
      const text = flags.json
        ? JSON.stringify(
            programs.map((p) => refusing(p, describe)),
            null,
            2,
          )
        : programs.map((p) => refusing(p, (q) => listing(q, flags.source))).join("\n\n");
      if (programs.length > 0) process.stdout.write(`${text}\n`);
      if (problems.length > 0) throw failure(problems.join("\n"));
    });
}

/** The name as a comment, then one instruction a line. */
function listing(program: Program, source: boolean): string {
  return [`; ${program.name}`, ...disassembleProgram(program, { source })].join("\n");
}

function describe(program: Program) {
  let line: SourceLine | undefined;
  return {
    name: program.name,
    instructions: decodeProgram(program.code).map((i) => {
      line = program.lines?.get(i.index) ?? line;
      const { opcode, group } = i.encoding;
      const { dst, src, offset, imm } = i;
      return {
        slot: i.index,
        text: formatInstruction(i, program.references?.get(i.index)),
        ...{ opcode, dst, src, offset, imm, group },
        ...(line === undefined ? {} : { source: line }),
      };
    }),
  };
}

function refusing<T>(program: Program, make: (program: Program) => T): T {
  try {
    return make(program);
  } catch (error) {
    if (error instanceof EbpfError) throw failure(`${program.name}: ${error.message}`);
    throw error;
  }
}
