/** What is known when a NIC does not work any more: for the message of a failed test. */
import type { Guest } from "./harness.ts";
import type { ServedNic } from "./nic.ts";

const TAIL = 4000;

/** Bus, interrupts, counters, and the stacks of blocked tasks. */
const IN_GUEST = `
for d in $(grep -l 0x0b9f /sys/bus/pci/devices/*/device); do
  echo $d; od -A n -t x1 -N 64 $(dirname $d)/config
done
grep bpfhv /proc/interrupts
for i in /sys/class/net/eth*; do i=$(basename $i); ip -s link show $i; ethtool -S $i; done
echo w >/proc/sysrq-trigger
dmesg | tail -n 60
`;

/** Returns the state of the guest, of QEMU and of the servers. Never rejects. */
export async function diagnosis(guest: Guest, nics: readonly ServedNic[]): Promise<string> {
  const parts: [name: string, read: () => Promise<string> | string][] = [
    ["boots", () => `${guest.boots}`],
    ["console", () => guest.serialLog().slice(-TAIL)],
    ["QEMU", () => guest.qemuLog().slice(-TAIL)],
    ...nics.flatMap((nic): typeof parts => [
      ["status", async () => JSON.stringify(await nic.status())],
      ["log", () => nic.log.slice(-TAIL)],
    ]),
    ["guest", async () => (await guest.run(IN_GUEST)).output],
  ];
  let text = "";
  for (const [name, read] of parts) {
    const found = await Promise.resolve()
      .then(read)
      .catch((error: Error) => error.message);
    text += `\n--- ${name}: ${found}`;
  }
  return text;
}
