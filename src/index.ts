/**
 * The package's root names its version only: what can be imported has a path of its own, so that a
 * program loads no more than it uses.
 *
 *     bpfhv/abi                the contract between host and guest driver, as data
 *     bpfhv/ebpf               assembler, objects, verifier, interpreter, JIT
 *     bpfhv/compiler           guest programs in TypeScript to eBPF
 *     bpfhv/compiler/language  what such a program imports
 *     bpfhv/memory             guest memory: translation, batches
 *     bpfhv/vfio-user          a server for PCI devices of any kind
 *     bpfhv/guest              a guest driver in user space
 *     bpfhv/testing            a NIC under load in this process, for tests of ring formats
 *     bpfhv/policy             policies that adapt a running NIC: bpfhv adapt
 *     bpfhv/register           Node.js loads TypeScript: node --import bpfhv/register
 */
import { readFileSync } from "node:fs";

const PACKAGE = new URL("../../package.json", import.meta.url);

/** The package's version, as in package.json. */
export const { version } = JSON.parse(readFileSync(PACKAGE, "utf8")) as { version: string };
