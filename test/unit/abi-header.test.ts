/** The module's header agrees with src/abi: compiles asserts made from src/abi against it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  ABI_VERSION,
  ABILITY,
  BLOB_HASH_OFFSET,
  BLOB_HEADER,
  BLOB_MAGIC,
  BLOB_NAME_OFFSET,
  BLOB_PROGRAM,
  BUF,
  BUFS_OFFSET,
  COALESCE_ADAPTIVE,
  CONTEXT,
  CTRL,
  EVENT,
  EXT_ID_VALUE,
  FEATURES,
  FILTER_MODE,
  FILTER_RESULT,
  HASH_TYPE,
  HELPERS,
  MAX_BUFS,
  MAX_COALESCE_US,
  MAX_CONTEXT_SIZE,
  MAX_FILTER_ADDRESSES,
  MAX_INSTRUCTIONS,
  MAX_QUEUE_BUFS,
  MAX_QUEUE_PAIRS,
  MAX_RSS_TABLE,
  METADATA,
  METADATA_HASH,
  METADATA_HASH_PORTS,
  MIN_QUEUE_BUFS,
  OFLAG_KICK_NEEDED,
  OFLAG_RESCHED_NEEDED,
  PCI_DEVICE,
  PCI_DEVICE_ORIGINAL,
  PCI_VENDOR,
  PRIVATE_OFFSET,
  PROGRAM_IDS,
  REG,
  RSS_FLAG,
  RSS_RESULT,
  STATUS,
  VERDICT,
} from "../../src/abi/index.ts";
import { RSS_KEY_BYTES } from "../../src/memory/index.ts";
import { REGISTER_ROWS } from "../../src/nic/register-table.ts";
import { withoutCc } from "../support/cc.ts";

const HEADER = fileURLToPath(new URL("../../../driver/linux/bpfhv_abi.h", import.meta.url));

/** The parts of the kernel's headers that are needed to compile this one in user space. */
const PRELUDE = `
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
typedef uint8_t __u8; typedef uint16_t __le16; typedef uint32_t __le32; typedef uint64_t __le64;
#define BIT(n) (1UL << (n))
`;

type Expectations = [expression: string, value: number][];

const named = (prefix: string, values: Readonly<Record<string, number>>): Expectations =>
  Object.entries(values).map(([name, value]) => [`${prefix}${name.toUpperCase()}`, value]);

const fields = (
  type: string,
  struct: { readonly fields: Readonly<Record<string, { offset: number }>> },
  shift = 0,
): Expectations =>
  Object.entries(struct.fields).map(([name, { offset }]) => [
    `offsetof(struct ${type}, ${name})`,
    offset - shift,
  ]);

const EXPECTATIONS: Expectations = [
  ...REGISTER_ROWS.flatMap(({ registers }) =>
    registers.map(({ name }): [string, number] => [`BPFHV_REG_${name}`, REG[name]]),
  ),
  ["BPFHV_REG_EXT_END", REG.EXT_END],
  ...named("BPFHV_STATUS_", STATUS),
  ...named("BPFHV_CTRL_", CTRL),
  ...named("BPFHV_ABILITY_", ABILITY),
  ...named("BPFHV_EVENT_", EVENT),
  ...named("BPFHV_VERDICT_", VERDICT),
  ...named("BPFHV_FILTER_", FILTER_MODE),
  ...named("BPFHV_FILTER_", FILTER_RESULT),
  ...named("BPFHV_RSS_", RSS_FLAG),
  ...named("BPFHV_RSS_", RSS_RESULT),
  ...named("BPFHV_HASH_", HASH_TYPE),
  ...named("BPFHV_F_", FEATURES),
  ...named("BPFHV_PROG_", PROGRAM_IDS),
  ...named("BPFHV_HELPER_BASE + BPFHV_HELPER_", HELPERS),
  ...fields("bpfhv_buf", BUF),
  ...fields("bpfhv_context", CONTEXT),
  ...fields("bpfhv_metadata", METADATA, METADATA.flags.offset),
  ...fields("bpfhv_blob", BLOB_HEADER),
  ...fields("bpfhv_blob_program", BLOB_PROGRAM),
  ["offsetof(struct bpfhv_context, metadata)", METADATA.flags.offset],
  ["offsetof(struct bpfhv_context, bufs)", BUFS_OFFSET],
  ["sizeof(struct bpfhv_context)", PRIVATE_OFFSET],
  ["sizeof(struct bpfhv_buf)", BUF.size],
  ["sizeof(struct bpfhv_blob)", BLOB_HEADER.size],
  ["offsetof(struct bpfhv_blob, hash)", BLOB_HASH_OFFSET],
  ["sizeof(struct bpfhv_blob_program)", BLOB_PROGRAM.size],
  ["offsetof(struct bpfhv_blob_program, name)", BLOB_NAME_OFFSET],
  ["BPFHV_VERSION", ABI_VERSION],
  ["BPFHV_EXT_ID", EXT_ID_VALUE],
  ["BPFHV_BLOB_MAGIC", BLOB_MAGIC],
  ["BPFHV_MAX_FILTER_ADDRESSES", MAX_FILTER_ADDRESSES],
  ["BPFHV_MAX_RSS_TABLE", MAX_RSS_TABLE],
  ["BPFHV_RSS_KEY_SIZE", RSS_KEY_BYTES],
  ["BPFHV_METADATA_HASH", METADATA_HASH],
  ["BPFHV_METADATA_HASH_PORTS", METADATA_HASH_PORTS],
  ["BPFHV_COALESCE_ADAPTIVE", COALESCE_ADAPTIVE],
  ["BPFHV_MAX_COALESCE_US", MAX_COALESCE_US],
  ["BPFHV_MAX_BUFS", MAX_BUFS],
  ["BPFHV_MAX_INSNS", MAX_INSTRUCTIONS],
  ["BPFHV_MIN_QUEUE_BUFS", MIN_QUEUE_BUFS],
  ["BPFHV_MAX_QUEUE_BUFS", MAX_QUEUE_BUFS],
  ["BPFHV_MAX_PAIRS", MAX_QUEUE_PAIRS],
  ["BPFHV_MAX_CTX_SIZE", MAX_CONTEXT_SIZE],
  ["BPFHV_PCI_VENDOR", PCI_VENDOR],
  ["BPFHV_PCI_DEVICE", PCI_DEVICE],
  ["BPFHV_PCI_DEVICE_ORIGINAL", PCI_DEVICE_ORIGINAL],
  ["BPFHV_OFLAG_KICK_NEEDED", OFLAG_KICK_NEEDED],
  ["BPFHV_OFLAG_RESCHED_NEEDED", OFLAG_RESCHED_NEEDED],
];

function compile(expectations: Expectations): { status: number | null; stderr: string } {
  const folder = mkdtempSync(join(tmpdir(), "bpfhv-abi-"));
  try {
    const header = readFileSync(HEADER, "utf8").replace(/^#include <linux\/.*$/gm, "");
    const asserts = expectations.map(
      ([expression, value]) => `_Static_assert((${expression}) == ${value}UL, "${expression}");`,
    );
    const file = join(folder, "abi.c");
    writeFileSync(file, [PRELUDE, header, ...asserts].join("\n"));
    const run = spawnSync("cc", ["-fsyntax-only", "-std=gnu11", "-Wall", file], {
      encoding: "utf8",
      timeout: 60_000,
    });
    return { status: run.status, stderr: run.stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test(`module's header agrees with src/abi in ${EXPECTATIONS.length} names, offsets and sizes`, {
  skip: withoutCc,
}, () => {
  const { status, stderr } = compile(EXPECTATIONS);
  assert.equal(status, 0, stderr);
});

test("compiler reports a difference between header and src/abi", { skip: withoutCc }, () => {
  const { status, stderr } = compile([["BPFHV_REG_CTRL", 5]]);
  assert.notEqual(status, 0);
  assert.match(stderr, /BPFHV_REG_CTRL/);
});
