/** Helpers of version 1 programs, called as the original's programs do, and by hostile programs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { HELPERS, PROGRAM_IDS, type ProgramName } from "../abi/index.ts";
import { programsOf } from "../devices/program-set.ts";
import { sringGso } from "../devices/sring_gso/host.ts";
import { assembleText } from "../ebpf/index.ts";
import { LocalMemory } from "./memory.ts";
import { GuestError, GuestRing } from "./ring.ts";

const BUFS = 16;
const HEADER = Uint8Array.from([1, 4, 54, 0, 100, 0, 34, 0, 16, 0]);
const CONTEXT_BYTES = sringGso.contextSize(BUFS);

/** Returns a ring whose program `name` is this text; the others are sring_gso's. */
function withRing(
  program: ProgramName,
  lines: readonly string[],
  use: (ring: GuestRing, context: Uint8Array) => void,
) {
  const memory = new LocalMemory(1 << 20);
  const direction = program.startsWith("rx") ? "rx" : "tx";
  try {
    const page = memory.allocate(4096, 4096);
    const context = memory.mapContext([page], CONTEXT_BYTES);
    const { code } = programsOf(sringGso, { bufs: BUFS, form: "v1" });
    const changed = new Map([...code, [PROGRAM_IDS[program], assembleText([...lines])]]);
    use(
      new GuestRing({
        ...{
          context,
          memory: memory.linear,
          direction,
          bufs: BUFS,
          bufferSize: 512,
          buffers: page,
          generation: 1,
        },
        programs: { form: "v1", code: changed },
      }),
      context,
    );
  } finally {
    memory.close();
  }
}

const call = (name: keyof typeof HELPERS): string => `call ${HELPERS[name]}`;
const END = ["r0 = 0", "exit"];

test("a header on the stack is filled when txp asks for the packet's metadata", () => {
  const lines = [
    "r6 = r1",
    "r2 = r10",
    "r2 += -16",
    call("pkt_virtio_net_md_get"),
    // The result, and bytes 0 to 7 and 8 to 9 of the header, to the private area.
    "*(u64 *)(r6 + 2096) = r0",
    "r3 = *(u64 *)(r10 - 16)",
    "*(u64 *)(r6 + 2104) = r3",
    "r3 = *(u16 *)(r10 - 8)",
    "*(u64 *)(r6 + 2112) = r3",
    ...END,
  ];
  withRing("txp", lines, (ring, context) => {
    const seen = () => new DataView(context.buffer, context.byteOffset + 2096, 24);
    ring.publish(1, 60, 60, HEADER);
    assert.equal(seen().getUint32(0, true), 1, "a checksum is requested");
    const bytes = new Uint8Array(seen().buffer, seen().byteOffset + 8, 10);
    assert.deepEqual(bytes, HEADER);
    ring.publish(1, 60);
    assert.equal(seen().getUint32(0, true), 0, "no checksum is requested");
    assert.deepEqual(bytes, new Uint8Array(10), "also filled");
  });
});

test("checksum fields are filled only when a checksum is requested", () => {
  const lines = [
    "r6 = r1",
    "*(u64 *)(r10 - 8) = -1",
    "r2 = r10",
    "r2 += -8",
    "r3 = r10",
    "r3 += -4",
    call("pkt_l4_csum_md_get"),
    "*(u64 *)(r6 + 2096) = r0",
    "r3 = *(u64 *)(r10 - 8)",
    "*(u64 *)(r6 + 2104) = r3",
    ...END,
  ];
  withRing("txp", lines, (ring, context) => {
    const words = new Uint32Array(context.buffer, context.byteOffset + 2096, 4);
    ring.publish(1, 60, 60, HEADER);
    assert.deepEqual([...words], [1, 0, 0xffff_0022, 0xffff_0010]);
    ring.publish(1, 60);
    assert.deepEqual([...words], [0, 0, 0xffff_ffff, 0xffff_ffff]);
  });
});

/** One completed packet of one buffer. */
const ONE_PACKET = ["*(u32 *)(r1 + 16) = 1", "*(u32 *)(r1 + 72) = 60"];

function collectOne(ring: GuestRing): void {
  ring.publish(1, 512);
  assert.equal(
    ring.collect(() => {}),
    1,
  );
}

test("metadata are those that rxc sets, and empty when it sets none for the next packet", () => {
  const lines = [
    ...ONE_PACKET,
    "r6 = r1",
    "r3 = *(u64 *)(r6 + 2144)",
    "r3 += 1",
    "*(u64 *)(r6 + 2144) = r3",
    "if r3 > 1 goto +4",
    "r2 = 0x10034",
    "r3 = 6",
    call("pkt_l4_csum_md_set"),
    "r0 = 1",
    "r0 = 1",
    "exit",
  ];
  withRing("rxc", lines, (ring, context) => {
    new Uint8Array(context.buffer, context.byteOffset + 2144, 8).fill(0);
    collectOne(ring);
    assert.deepEqual([...ring.metadata], [1, 0, 0, 0, 0, 0, 0x34, 0, 6, 0], "16 bits of 0x10034");
    collectOne(ring);
    assert.deepEqual([...ring.metadata], Array(10).fill(0));
  });
});

test("a header on rxc's stack becomes the packet's metadata", () => {
  const lines = [
    ...ONE_PACKET,
    "*(u64 *)(r10 - 16) = 0x22",
    "*(u64 *)(r10 - 8) = 0x10",
    "r2 = r10",
    "r2 += -16",
    call("pkt_virtio_net_md_set"),
    "r0 = 1",
    "exit",
  ];
  withRing("rxc", lines, (ring) => {
    collectOne(ring);
    assert.deepEqual([...ring.metadata], [0x22, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]);
  });
});

const POINTERS: readonly (readonly [string, readonly string[]])[] = [
  ["null", ["r2 = 0"]],
  ["the last bytes of the address space", ["r2 = -1"]],
  ["a stack address that is too high by one", ["r2 = r10", "r2 += -9"]],
  ["an address below the stack", ["r2 = r10", "r2 += -4097"]],
  ["the end of the context", ["r2 = r1", `r2 += ${CONTEXT_BYTES - 9}`]],
  ["the bytes before the context", ["r2 = r1", "r2 += -1"]],
];

for (const [what, pointer] of POINTERS) {
  const wrong = (error: unknown) =>
    error instanceof GuestError && /neither its stack nor its context/.test(error.message);

  test(`a program ends with an error when it passes ${what} for a header`, () => {
    withRing("txp", [...pointer, call("pkt_virtio_net_md_get"), ...END], (ring) => {
      assert.throws(() => ring.publish(1, 60, 60, HEADER), wrong);
    });
    withRing("rxc", [...ONE_PACKET, ...pointer, call("pkt_virtio_net_md_set"), ...END], (ring) => {
      assert.throws(() => ring.collect(() => {}), wrong);
      assert.deepEqual([...ring.metadata], Array(10).fill(0));
    });
  });
}

test("a program ends with an error when it passes a helper another context", () => {
  const lines = ["r2 = r10", "r2 += -16", "r1 += 8", call("pkt_virtio_net_md_get"), ...END];
  withRing("txp", lines, (ring) => {
    assert.throws(() => ring.publish(1, 60, 60, HEADER), /which is not its context/);
  });
});
