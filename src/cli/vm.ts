/** `bpfhv vm`: starts QEMU with the options that a bpfhv NIC needs. */
import { spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { Command, Option } from "commander";
import { statusOf } from "../control/client.ts";
import { requireShort } from "../control/socket-path.ts";
import { failure, Usage } from "../errors.ts";
import { detectAccelerator } from "../vm/accelerator.ts";
import { checkDisk, DISK_FORMATS, type DiskFormat } from "../vm/disk-image.ts";
import { canRefuseMigration, systemQemu } from "../vm/find-qemu.ts";
import { iommuProblem, sharedMemoryProblem, unsealedMemory } from "../vm/guest-memory.ts";
import {
  buildModule,
  composeInitrd,
  type GuestParts,
  moduleFiles,
  type Prepare,
  packageRoot,
  prepareGuest,
} from "../vm/guest-parts.ts";
import {
  type Accelerator,
  type Boot,
  type Device,
  parseMemory,
  qemuCommand,
  rootPort,
  shellQuote,
  vfioUserDevice,
} from "../vm/qemu-command.ts";

export interface VmFlags {
  readonly socket?: readonly string[];
  readonly kernel?: string;
  readonly initrd?: string;
  readonly append?: string;
  readonly disk?: string;
  readonly diskFormat?: DiskFormat;
  readonly snapshot?: boolean;
  readonly memory: string;
  readonly smp: string;
  readonly accel: string;
  readonly qemu?: string;
  readonly print?: boolean;
  readonly originalDriver?: boolean;
  readonly hotplug?: boolean;
}

const MAX_CPUS = 255;
const NO_GUEST = "no guest";
const TEST_GUEST_LINE = "console=ttyS0 panic=1 quiet mitigations=off bpfhv.shell";

export function vmCommand(): Command {
  const collect = (value: string, before: string[] = []) => [...before, value];
  return new Command("vm")
    .description("start QEMU with bpfhv NICs, around a kernel, a disk image or the test guest")
    .option("--socket <path>", "socket of a running `bpfhv serve` (repeat for more NICs)", collect)
    .option("--kernel <file>", "kernel to boot (default: a small test guest with the driver)")
    .option("--initrd <file>", "its initial RAM disk")
    .option("--append <words>", "its command line")
    .option("--disk <image>", "disk image to boot instead; the guest writes into it")
    .addOption(
      new Option("--disk-format <name>", "of --disk, never guessed (default: raw)").choices(
        DISK_FORMATS,
      ),
    )
    .option("--snapshot", "leave the image as it is: what the guest writes is lost at the end")
    .option("--memory <size>", "guest RAM: 512M, 2G", "512M")
    .option("--smp <n>", "virtual CPUs", "1")
    .option("--accel <name>", "kvm, tcg (emulation), or auto: kvm if it works", "auto")
    .option("--qemu <program>", "QEMU to use (default: the system's, or one that is prepared)")
    .option("--hotplug", "let QMP unplug the NICs; serve needs --interrupts msi (docs/qemu.md)")
    .option("--original-driver", "answer every write, as an original bpfhv driver needs")
    .option("--print", "show the command line instead of running it")
    .argument("[qemu-arguments...]", "after --: more arguments for QEMU, as they are")
    .addHelpText("after", "\nThe guest's console is this terminal: Ctrl-A X ends QEMU.")
    .action((extra: string[], flags: VmFlags) => vm(flags, extra));
}

async function vm(flags: VmFlags, extra: readonly string[]): Promise<void> {
  checkUsage(flags, extra);
  const unsealed = unsealedMemory(extra);
  const options = { hotplug: flags.hotplug === true, unsealed };
  const mayUse = flags.print
    ? []
    : await Promise.all(flags.socket!.map((path) => requireUsable(path, options)));
  if (unsealed !== undefined && (flags.print || mayUse.includes(false))) {
    process.stderr.write(
      `bpfhv: ${unsealed}: a NIC whose \`bpfhv serve\` runs without --allow-unsealed leaves it ` +
        "unused; use memory-backend-memfd instead\n",
    );
  }
  const command = await composeVm(flags, extra);
  if (flags.print) {
    process.stdout.write(`${shellQuote(command)}\n`);
    return;
  }
  await runQemu(command);
}

/** What can be checked without looking at the machine. @throws Usage */
export function checkUsage(flags: VmFlags, extra: readonly string[]): void {
  const sockets = flags.socket ?? [];
  if (sockets.length === 0) throw new Usage("--socket is missing: the path given to `bpfhv serve`");
  for (const path of sockets) requireShort("--socket", resolve(path));
  if (flags.disk !== undefined && flags.kernel !== undefined) {
    throw new Usage("--disk and --kernel exclude each other");
  }
  if (flags.disk === undefined && (flags.diskFormat ?? flags.snapshot) !== undefined) {
    throw new Usage("--disk-format and --snapshot need --disk");
  }
  if (flags.kernel === undefined && (flags.initrd ?? flags.append) !== undefined) {
    throw new Usage("--initrd and --append need --kernel");
  }
  if (parseMemory(flags.memory) === undefined) {
    throw new Usage(`--memory "${flags.memory}": use a size such as 512M or 2G, at least 32M`);
  }
  if (!/^[1-9]\d{0,2}$/.test(flags.smp) || Number(flags.smp) > MAX_CPUS) {
    throw new Usage(`--smp "${flags.smp}": use a whole number from 1 to ${MAX_CPUS}`);
  }
  if (!["auto", "kvm", "tcg"].includes(flags.accel)) {
    throw new Usage(`--accel "${flags.accel}": use auto, kvm or tcg`);
  }
  const problem = sharedMemoryProblem(extra) ?? iommuProblem(extra);
  if (problem !== undefined) throw new Usage(problem);
}

async function composeVm(flags: VmFlags, extra: readonly string[]): Promise<string[]> {
  for (const file of [flags.kernel, flags.initrd]) requireReadable(file);
  const given = givenBoot(flags);
  const ownQemu = systemQemu(flags.qemu);
  // --print only shows: it downloads and builds nothing.
  const prepare = { onlyPrepared: flags.print === true };
  const needed = ownQemu === undefined || given === undefined;
  const parts = needed ? await prepareGuest(undefined, prepare) : undefined;
  const qemu = ownQemu ?? parts!.qemu;
  const withoutBlocker = !canRefuseMigration(qemu);
  if (withoutBlocker) {
    process.stderr.write(
      `bpfhv: ${qemu} has no vvfat driver to refuse migration with: do not migrate this guest\n`,
    );
  }
  return qemuCommand({
    qemu,
    withoutBlocker,
    accelerator: await chooseAccelerator(flags, qemu, parts),
    memoryMiB: parseMemory(flags.memory)!,
    cpus: Number(flags.smp),
    boot: given ?? (await testGuest(parts!, prepare)),
    devices: flags.socket!.flatMap((path, index) => nicDevices(path, index, flags)),
    extra: ["-serial", "mon:stdio", ...extra],
  });
}

function nicDevices(path: string, index: number, flags: VmFlags): Device[] {
  const nic = { id: `nic${index}`, originalDriver: flags.originalDriver === true };
  if (!flags.hotplug) return [vfioUserDevice(resolve(path), nic)];
  const bus = `port${index}`;
  return [rootPort(bus, index + 1), vfioUserDevice(resolve(path), { ...nic, bus })];
}

async function chooseAccelerator(
  flags: VmFlags,
  qemu: string,
  parts: GuestParts | undefined,
): Promise<Accelerator> {
  if (flags.accel === "kvm" || flags.accel === "tcg") return flags.accel;
  const kernel = parts?.kernel ?? flags.kernel;
  if (kernel !== undefined) return detectAccelerator({ qemu, kernel });
  // A disk image with the system's QEMU: nothing small to try KVM
  // with, so QEMU's own judgement it is.
  return isAccessible("/dev/kvm", constants.R_OK | constants.W_OK) ? "kvm" : "tcg";
}

/** Our own small guest: a shell on the console, the driver loaded. */
async function testGuest(parts: GuestParts, prepare: Prepare): Promise<Boot> {
  const modules = await buildModule(join(packageRoot(), "driver/linux"), undefined, prepare);
  const initrd = composeInitrd(parts, moduleFiles(modules.map((path) => ({ path }))));
  return { kernel: parts.kernel, initrd, append: TEST_GUEST_LINE };
}

/** What the user gives to boot; undefined: our own guest. @throws CommandError */
function givenBoot({ disk, diskFormat, snapshot, kernel, initrd, append }: VmFlags) {
  if (disk !== undefined) {
    return { disk: checkDisk(resolve(disk), diskFormat ?? "raw"), snapshot: snapshot === true };
  }
  if (kernel === undefined) return undefined;
  return {
    kernel,
    ...(initrd === undefined ? {} : { initrd }),
    append: append ?? "console=ttyS0",
  };
}

function requireReadable(path: string | undefined): void {
  if (path === undefined) return;
  if (!isAccessible(path, constants.R_OK)) {
    throw failure(`cannot read ${path}: check the path and its permissions`);
  }
  if (!statSync(path).isFile()) throw failure(`${path} is not a file: give the file to boot`);
}

/**
 * Looks at a NIC before QEMU does, which would wait for seconds, and then say that a message timed
 * out.
 * @returns whether the server is known to use all of the guest's RAM. @throws CommandError
 */
async function requireUsable(
  path: string,
  { hotplug, unsealed }: { hotplug: boolean; unsealed: string | undefined },
): Promise<boolean> {
  const missing = `no NIC is served on ${path}: start \`bpfhv serve --socket ${path}\` first`;
  if (!statSync(path, { throwIfNoEntry: false })?.isSocket()) throw failure(missing);
  let answer: unknown;
  try {
    answer = await statusOf(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ECONNREFUSED") throw failure(missing);
    // Another vfio-user server, or one of another user: QEMU will see.
    return unsealed === undefined;
  }
  const { step, pid, interrupts, allowUnsealed } = (answer ?? {}) as Record<string, unknown>;
  if (hotplug && interrupts !== "msi") {
    throw failure(
      `${path}: --hotplug needs a NIC that is served with --interrupts msi: ` +
        "QEMU aborts when one with MSI-X is unplugged",
    );
  }
  if (unsealed !== undefined && allowUnsealed === false) {
    throw failure(
      `${path}: ${unsealed}, and this NIC leaves such memory unused: use memory-backend-memfd, ` +
        "or start `bpfhv serve` with --allow-unsealed (docs/failures.md)",
    );
  }
  if (typeof step === "string" && step !== NO_GUEST) {
    throw failure(
      `${path}: a guest has this NIC already (server's process ${pid}): ` +
        "end that QEMU first, or serve another NIC on another socket",
    );
  }
  return unsealed === undefined || allowUnsealed === true;
}

function isAccessible(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

/** Resolves when QEMU ends well. The terminal is QEMU's, so Ctrl-C belongs to the guest. */
function runQemu([program, ...words]: string[]): Promise<void> {
  const child = spawn(program!, words, { stdio: "inherit" });
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  const end = () => child.kill("SIGTERM");
  for (const signal of ["SIGTERM", "SIGHUP", "SIGINT"] as const) process.on(signal, forward);
  process.on("exit", end);
  return new Promise<void>((resolve, reject) => {
    child.once("error", (error) => reject(failure(`cannot run ${program}: ${error.message}`)));
    child.once("close", (status, signal) => {
      if (status === 0) resolve();
      else if (signal !== null) reject(failure(`QEMU was ended by ${signal}`));
      else reject(failure(`QEMU failed with status ${status}: see its message above`));
    });
  }).finally(() => {
    for (const signal of ["SIGTERM", "SIGHUP", "SIGINT"] as const) {
      process.removeListener(signal, forward);
    }
    process.removeListener("exit", end);
  });
}
