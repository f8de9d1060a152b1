import assert from "node:assert/strict";
import { test } from "node:test";
import {
  hasNumaMemory,
  iommuProblem,
  sharedMemoryProblem,
  unsealedMemory,
} from "./guest-memory.ts";

test("extra arguments that leave guest RAM unshared are refused with a remedy", () => {
  const refused: [string[], RegExp][] = [
    [["-m", "1G"], /--memory/],
    [["-mem-path", "/dev/hugepages"], /share=on/],
    [
      ["-object", "memory-backend-ram,id=a,size=1G", "-machine", "memory-backend=a"],
      /memory-backend-memfd/,
    ],
    [
      ["-object", "memory-backend-memfd,id=a,share=off", "-machine", "memory-backend=a"],
      /share=on/,
    ],
    [["-object", "memory-backend-file,id=a,mem-path=/x", "-numa", "node,memdev=a"], /share=on/],
    [
      [
        "-object",
        '{"qom-type":"memory-backend-memfd","id":"a","share":false}',
        "-M",
        "memory-backend=a",
      ],
      /share=on/,
    ],
    [["-M", "pc,memory-backend=nothing"], /no memory backend/],
    [["-object", "memory-backend-ram,id=a,size=1G", "-device", "pc-dimm,memdev=a"], /-memfd/],
  ];
  for (const [extra, remedy] of refused) assert.match(sharedMemoryProblem(extra) ?? "", remedy);
});

test("extra arguments are accepted when their RAM is shared or they do not concern RAM", () => {
  const fine = [
    [],
    ["-trace", "vfio_user*"],
    ["-machine", "usb=off"],
    ["-object", "memory-backend-file,id=a,mem-path=/x,share=on", "-machine", "memory-backend=a"],
    ["-object", "memory-backend-memfd,id=a,size=1G", "-numa", "node,memdev=a"],
    ["-object", "memory-backend-ram,id=unused,size=1M"],
  ];
  for (const extra of fine) assert.equal(sharedMemoryProblem(extra), undefined, extra.join(" "));
});

test("guest RAM is reported when it cannot be sealed, in any form of the option", () => {
  const file = "memory-backend-file,id=a,size=1G,mem-path=/x,share=on";
  const unsealed: [string[], RegExp][] = [
    [["-object", file, "-machine", "memory-backend=a"], /"a" \(memory-backend-file\) cannot/],
    [["-object", file, "-numa", "node,memdev=a"], /"a"/],
    [["-object", file, "-device", "pc-dimm,id=d,memdev=a"], /"a"/],
    [["-object", file, "-device", '{"driver":"virtio-mem-pci","memdev":"a"}'], /"a"/],
    [["-object", "memory-backend-shm,id=s,size=1G", "-M", "q35,memory-backend=s"], /"s".*-shm/],
    [
      ["-object", "memory-backend-memfd,id=m,seal=off", "-M", "memory-backend=m"],
      /"m" \(memory-backend-memfd,seal=off\)/,
    ],
    [["-object", file, "-M", "memory-backend=ram", "-numa", "node,memdev=a"], /"a"/],
  ];
  for (const [extra, name] of unsealed) {
    assert.match(unsealedMemory(extra) ?? "", name, extra.join(" "));
    assert.equal(sharedMemoryProblem(extra), undefined, "it is shared nevertheless");
  }
});

test("guest RAM is not called unsealed when it is a memfd, or a file that is not RAM", () => {
  const file = "memory-backend-file,id=a,mem-path=/x,share=on";
  const fine = [
    [],
    ["-object", file],
    ["-object", file, "-device", "ivshmem-plain,memdev=a"],
    ["-object", "memory-backend-memfd,id=m,seal=on", "-M", "memory-backend=m"],
    ["-object", "memory-backend-memfd,id=m,hugetlb=on", "-numa", "node,memdev=m"],
  ];
  for (const extra of fine) assert.equal(unsealedMemory(extra), undefined, extra.join(" "));
});

test("NUMA nodes have memory of their own when one names a backend", () => {
  assert.equal(hasNumaMemory(["-numa", "node,nodeid=0,memdev=a"]), true);
  assert.equal(hasNumaMemory(["-numa", '{"type":"node","memdev":"a"}']), true);
  assert.equal(hasNumaMemory(["-numa", "node,cpus=0", "-device", "pc-dimm,memdev=a"]), false);
});

test("IOMMU is refused when QEMU would abort or leave the NIC outside it", () => {
  const refused: [string, RegExp][] = [
    ["intel-iommu", /needs caching-mode=on/],
    ["intel-iommu,intremap=on,caching-mode=off", /needs caching-mode=on/],
    ['{"driver":"intel-iommu","caching-mode":true}', /use -device intel-iommu,…/],
    ['{"driver":"virtio-iommu-pci"}', /use -device virtio-iommu-pci,…/],
  ];
  for (const [device, remedy] of refused) {
    assert.match(iommuProblem(["-device", device]) ?? "", remedy);
  }
  for (const device of ["intel-iommu,caching-mode=on", "virtio-iommu-pci", "virtio-rng-pci"]) {
    assert.equal(iommuProblem(["-device", device]), undefined, device);
  }
});
