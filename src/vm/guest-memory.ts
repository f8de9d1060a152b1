/** Checks that the NIC's process can map the guest memory that QEMU's arguments create. Pure. */

interface Backend {
  readonly id: string;
  readonly kind: string;
  readonly fields: ReadonlyMap<string, string>;
}

/** The backend that `qemuCommand` creates. */
const OWN: Backend = {
  id: "ram",
  kind: "memory-backend-memfd",
  fields: new Map([["share", "on"]]),
};
/** Devices that plug their backend into the guest as RAM. */
const DIMMS: readonly string[] = ["pc-dimm", "nvdimm", "virtio-mem-pci"];
/** Devices that translate the addresses of the PCI devices created after them. */
const IOMMUS: readonly string[] = ["intel-iommu", "virtio-iommu-pci", "amd-iommu"];

/**
 * Returns why these extra arguments would give the guest RAM that the NIC's
 * process cannot map, and what to do; undefined if they are fine. QEMU does not
 * report it: all packets would be lost silently.
 */
export function sharedMemoryProblem(extra: readonly string[]): string | undefined {
  const options = [...optionPairs(extra)].map(([option]) => option);
  if (options.includes("m"))
    return "-m would disagree with the shared memory: use --memory instead";
  if (options.includes("mem-path")) {
    return "-mem-path gives RAM that is not shared: use -object memory-backend-memfd,share=on";
  }
  for (const used of usedBackends(extra)) {
    const problem =
      typeof used === "string"
        ? `there is no memory backend "${used}": add its -object`
        : unsharedReason(used);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/**
 * Returns the guest RAM in a file that cannot be sealed against shrinking; undefined if there is
 * none. A server without --allow-unsealed leaves such RAM unused (src/memory/regions.ts).
 */
export function unsealedMemory(extra: readonly string[]): string | undefined {
  for (const used of usedBackends(extra)) {
    if (typeof used === "string" || !isUnsealed(used)) continue;
    const kind = used.kind === OWN.kind ? `${used.kind},seal=off` : used.kind;
    return `guest RAM "${used.id}" (${kind}) cannot be sealed against shrinking`;
  }
  return undefined;
}

/**
 * Returns true if NUMA nodes have their own backends: QEMU refuses `memory-backend=` beside them.
 */
export function hasNumaMemory(extra: readonly string[]): boolean {
  return [...optionPairs(extra)].some(
    ([option, value]) => option === "numa" && usedBackend(option, value) !== undefined,
  );
}

/**
 * Returns why these extra arguments would give the guest an IOMMU that the NIC does not support,
 * and what to do; undefined if they do not. QEMU starts nevertheless, and aborts or fails later.
 */
export function iommuProblem(extra: readonly string[]): string | undefined {
  for (const [option, value] of optionPairs(extra)) {
    if (option !== "device") continue;
    const fields = parseFields(value, "driver");
    const driver = fields.get("driver") ?? "";
    if (!IOMMUS.includes(driver)) continue;
    // QEMU creates devices in JSON form after the others, in their order. A NIC is in JSON form.
    if (value.startsWith("{")) {
      return `${driver} in JSON form is created after the NIC, which is too late: use -device ${driver},…`;
    }
    if (driver === "intel-iommu" && !isOn(fields.get("caching-mode") ?? "off")) {
      return "intel-iommu needs caching-mode=on: without it QEMU aborts when the guest enables the IOMMU";
    }
  }
  return undefined;
}

/**
 * Returns the backends that are guest RAM, in order; only the name of one that no -object declares.
 */
function usedBackends(extra: readonly string[]): (Backend | string)[] {
  const pairs = [...optionPairs(extra)];
  const backends = new Map([[OWN.id, OWN]]);
  for (const [option, value] of pairs) {
    const backend = option === "object" ? declaredBackend(value) : undefined;
    if (backend !== undefined) backends.set(backend.id, backend);
  }
  return pairs.flatMap(([option, value]) => {
    const name = usedBackend(option, value);
    return name === undefined ? [] : [backends.get(name) ?? name];
  });
}

function* optionPairs(words: readonly string[]): Generator<[option: string, value: string]> {
  for (let i = 0; i < words.length; i++) {
    const match = /^--?([a-z].*)$/i.exec(words[i]!);
    if (match !== null) yield [match[1]!, words[i + 1] ?? ""];
  }
}

function declaredBackend(value: string): Backend | undefined {
  const fields = parseFields(value, "qom-type");
  const kind = fields.get("qom-type") ?? "";
  const id = fields.get("id");
  return kind.startsWith("memory-backend-") && id !== undefined ? { id, kind, fields } : undefined;
}

function unsharedReason({ id, kind, fields }: Backend): string | undefined {
  const share = fields.get("share");
  if (kind === "memory-backend-memfd" || kind === "memory-backend-file") {
    // The default is shared for a memfd, private for a file.
    const shared = share === undefined ? kind === "memory-backend-memfd" : isOn(share);
    return shared ? undefined : `guest RAM "${id}" is not shared: add share=on to its -object`;
  }
  if (kind === "memory-backend-shm") return undefined;
  return `guest RAM "${id}" is not shared: use memory-backend-memfd,share=on instead of ${kind}`;
}

/** Only a memfd has seals, and only if QEMU created it with them, which is the default. */
function isUnsealed({ kind, fields }: Backend): boolean {
  return kind !== "memory-backend-memfd" || !isOn(fields.get("seal") ?? "on");
}

function usedBackend(option: string, value: string): string | undefined {
  if (option === "machine" || option === "M") {
    return parseFields(value, "type").get("memory-backend");
  }
  if (option === "numa") return parseFields(value, "type").get("memdev");
  if (option !== "device") return undefined;
  const fields = parseFields(value, "driver");
  return DIMMS.includes(fields.get("driver") ?? "") ? fields.get("memdev") : undefined;
}

function isOn(value: string): boolean {
  return ["on", "true", "yes", "y"].includes(value);
}

/**
 * Parses `kind,a=b,c=d` or JSON to a flat map. The first
 * word without "=" is the value of `implied`.
 */
function parseFields(text: string, implied: string): Map<string, string> {
  if (text.startsWith("{")) {
    try {
      const entries = Object.entries(JSON.parse(text) as Record<string, unknown>);
      return new Map(entries.map(([key, value]) => [key, String(value)]));
    } catch {
      return new Map(); // QEMU reports the error
    }
  }
  return new Map(
    text.split(",").map((word): [string, string] => {
      const equals = word.indexOf("=");
      return equals < 0 ? [implied, word] : [word.slice(0, equals), word.slice(equals + 1)];
    }),
  );
}
