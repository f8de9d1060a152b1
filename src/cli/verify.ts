/** `bpfhv verify`: are programs safe to ship? Those of a file, or those of a device. */
import { Command, Option } from "commander";
import { PROGRAM_NAMES, type ProgramForm, type ProgramName } from "../abi/index.ts";
import type { RingFormat } from "../devices/format.ts";
import { proveDevice } from "../devices/proof.ts";
import { explain, type Verdict, verify } from "../ebpf/verifier/index.ts";
import { Usage, whole } from "../errors.ts";
import { DEFAULT_BUFS } from "../nic/config.ts";
import { DEVICE_WORDS, loadDevice, requireSize } from "./device-option.ts";
import { FORMATS, type InputOptions, readPrograms } from "./program-input.ts";

interface VerifyFlags extends InputOptions {
  device?: string;
  bufs: number;
  contextSize?: number;
  program?: ProgramName;
  form: ProgramForm;
  json: boolean;
  verbose: number;
}

const bufs = whole("--bufs", 16, 8192);
const contextBytes = whole("--context-size", 1, 64 << 20);

export function verifyCommand(): Command {
  return new Command("verify")
    .description(
      "prove that programs are safe: memory, initialisation, termination, helpers, results",
    )
    .argument(
      "[file]",
      "an ELF object, or one program in hexadecimal, text or raw bytes; - is stdin",
    )
    .option("--section <name>", "of an object, this section alone")
    .addOption(new Option("--format <name>", "default: by content").choices(FORMATS))
    .option("--device <name>", `without a file, its programs; ${DEVICE_WORDS}`)
    .option("--bufs <n>", "buffers per queue of the device", bufs, DEFAULT_BUFS)
    .option("--context-size <bytes>", "size of the context (default: the device's)", contextBytes)
    .addOption(
      new Option("--program <name>", "which program it is (default: its section's name)").choices(
        PROGRAM_NAMES,
      ),
    )
    .addOption(
      new Option("--form <form>", "v1 programs may call helpers")
        .choices(["helperfree", "v1"])
        .default("helperfree"),
    )
    .option("--json", "as JSON", false)
    .option("-v, --verbose", "the path to what is refused; twice: every state", more, 0)
    .addHelpText("after", "\nThe exit status is 1 if a program is refused.")
    .action(async (file: string | undefined, flags: VerifyFlags) => {
      const verdicts = await (file === undefined ? verifyDevice(flags) : verifyFile(file, flags));
      process.stdout.write(`${flags.json ? toJson(verdicts, flags) : toText(verdicts, flags)}\n`);
      if (verdicts.some(({ accepted }) => !accepted)) process.exitCode = 1;
    });
}

const more = (_value: string, before: number): number => before + 1;

/** @throws Usage */
async function verifyDevice(flags: VerifyFlags): Promise<readonly Verdict[]> {
  const { bufs, form, program } = flags;
  if (flags.device === undefined) throw new Usage("give a file, or --device");
  if (flags.contextSize !== undefined) {
    throw new Usage("--context-size goes with a file: a device knows its own");
  }
  return proveDevice(await deviceOf(flags.device, bufs), {
    rxBufs: bufs,
    txBufs: bufs,
    forms: [form],
    log: flags.verbose > 1,
    ...(program === undefined ? {} : { programs: [program] }),
  });
}

/** @throws CommandError */
async function verifyFile(file: string, flags: VerifyFlags): Promise<readonly Verdict[]> {
  const contextSize = flags.contextSize ?? (await contextSizeOf(flags));
  const { form } = flags;
  return readPrograms(file, flags).map((program) => {
    const name = flags.program ?? nameOf(program.name);
    const log = flags.verbose > 1;
    return verify(program, {
      ...{ contextSize, form, log },
      ...(name === undefined ? {} : { program: name }),
    });
  });
}

function nameOf(section: string): ProgramName | undefined {
  return PROGRAM_NAMES.find((name) => name === section);
}

async function contextSizeOf({ device, bufs }: VerifyFlags): Promise<number> {
  if (device !== undefined) return (await deviceOf(device, bufs)).contextSize(bufs);
  throw new Usage("the size of the context decides what is safe: give --context-size, or --device");
}

async function deviceOf(name: string, bufs: number): Promise<RingFormat> {
  const { format } = await loadDevice(name);
  requireSize(format, bufs);
  return format;
}

function toText(verdicts: readonly Verdict[], { verbose }: VerifyFlags): string {
  const detail = verbose === 0 ? 0 : verbose === 1 ? 1 : 2;
  const texts = verdicts.map((verdict) => explain(verdict, detail));
  const refused = verdicts.filter(({ accepted }) => !accepted).length;
  if (verdicts.length === 1) return texts.join("\n");
  return [...texts, `${verdicts.length - refused} accepted, ${refused} refused`].join("\n");
}

function toJson(verdicts: readonly Verdict[], { verbose }: VerifyFlags): string {
  const shown = verdicts.map(({ log, ...verdict }) =>
    verbose > 1 ? { ...verdict, log } : verdict,
  );
  return JSON.stringify(shown, null, 2);
}
