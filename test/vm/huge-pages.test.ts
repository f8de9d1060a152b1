/**
 * Guest RAM on huge pages: contexts by page list, whose pages cannot be mapped side by side there.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { patience } from "../support/vm/harness.ts";
import { NicGuest } from "../support/vm/nic-guest.ts";
import { isFull, withoutVm } from "../support/vm/requirements.ts";

const MEMORY_MIB = 256;
const RESERVED = "/proc/sys/vm/nr_hugepages";

function meminfo(name: string): number {
  return Number(
    new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(readFileSync("/proc/meminfo", "utf8"))?.[1],
  );
}

/**
 * Reserves huge pages for one guest. @returns a function that
 * releases them; null if there are too few
 */
function reserveHugePages(): (() => void) | null {
  const before = readFileSync(RESERVED, "utf8");
  const needed = Math.ceil((MEMORY_MIB * 1024) / meminfo("Hugepagesize"));
  const missing = needed - (meminfo("HugePages_Free") - meminfo("HugePages_Rsvd"));
  if (missing > 0) writeFileSync(RESERVED, String(Number(before) + missing));
  const giveBack = () => writeFileSync(RESERVED, before);
  if (meminfo("HugePages_Free") - meminfo("HugePages_Rsvd") >= needed) return giveBack;
  giveBack();
  return null;
}

const skip = await withoutVm();

describe("a guest on huge pages", { skip, timeout: patience(100_000) }, () => {
  // src/guest/scattered.test.ts tests each format's contexts on pages of this size without a guest.
  for (const device of isFull ? ["sring", "sring_gso", "vring_packed"] : ["sring_gso"]) {
    test(`${device} is enabled and pings pass when RAM is hugetlb=on`, async (t) => {
      const giveBack = reserveHugePages();
      if (giveBack === null) return t.skip("no huge pages can be reserved: vm.nr_hugepages");
      try {
        const backend = `memory-backend-memfd,id=huge,size=${MEMORY_MIB}M,share=on,hugetlb=on`;
        const vm = await NicGuest.start({
          label: "huge",
          serve: [`--device=${device}`],
          guest: {
            memoryMiB: MEMORY_MIB,
            qemuArguments: ["-object", backend, "-machine", "memory-backend=huge"],
          },
        });
        try {
          await vm.load();
          const status = await vm.nic.status();
          assert.equal(status.step, "enabled", status.lastRefusal);
          assert.equal(status.programs, "verified", "contexts by page list");
          assert.equal(await vm.pings(50), 0);
        } finally {
          assert.equal((await vm.close()).aborted, false);
        }
      } finally {
        giveBack();
      }
    });
  }
});
