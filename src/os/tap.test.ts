import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import test from "node:test";
import { openFds, requires } from "../../test/support/os.ts";
import { close } from "./fd.ts";
import * as libc from "./libc.ts";
import { mapAnonymous } from "./memory.ts";
import { inNetns } from "./netns.ts";
import { openTap, setTapOffloads } from "./tap.ts";
import { TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO } from "./tun-flags.ts";
import { readv, writev } from "./vector-io.ts";

const NS = `bpfhv-os-${process.pid}`;
const missing = missingForTap();
const skip = missing === "" || requires("tap") ? false : missing;

function missingForTap(): string {
  if (process.getuid!() !== 0) return "needs root";
  if (!existsSync("/dev/net/tun")) return "needs /dev/net/tun";
  try {
    execFileSync("ip", ["netns", "list"], { stdio: "ignore" });
  } catch {
    return "needs ip(8) from iproute2";
  }
  return "";
}

function ip(...words: string[]): void {
  execFileSync("ip", words, { stdio: ["ignore", "ignore", "inherit"] });
}

function inOwnNamespace(action: () => void): void {
  ip("netns", "add", NS);
  const before = openFds();
  try {
    action();
    assert.equal(openFds(), before, "no descriptor left");
  } finally {
    ip("netns", "delete", NS);
  }
}

test("openTap creates a TAP in its namespace with the offloads that the kernel supports", {
  skip,
}, () => {
  inOwnNamespace(() => {
    const offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO;
    const options = { name: "t0", vnetHeader: 12, offloads, netns: NS, create: true } as const;
    const tap = openTap(options);
    assert.ok(
      (tap.offloads & (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)) ===
        (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6),
    );
    assert.equal(libc.ifNameToIndex("t0"), 0, "not in our own namespace");
    assert.ok(inNetns(NS, () => libc.ifNameToIndex("t0")) > 0);
    assert.throws(() => openTap(options), {
      code: "EBUSY",
      message: /another process has it open/,
    });
    assert.equal(setTapOffloads(tap, 0x80 | TUN_F_CSUM), TUN_F_CSUM, "an unknown bit is left out");
    assert.equal(setTapOffloads(tap, TUN_F_TSO4), 0, "segmentation needs checksums");
    close(tap.fd);
  });
});

test("openTap brings a TAP up only when it created it", { skip }, () => {
  const flags = (name: string): string =>
    execFileSync("ip", ["-n", NS, "-o", "link", "show", name], { encoding: "utf8" });
  inOwnNamespace(() => {
    const made = openTap({ name: "t0", vnetHeader: 0, offloads: 0, netns: NS, create: true });
    assert.match(flags("t0"), /<[^>]*\bUP\b/);
    ip("-n", NS, "tuntap", "add", "dev", "t1", "mode", "tap");
    const found = openTap({ name: "t1", vnetHeader: 0, offloads: 0, netns: NS, create: true });
    assert.doesNotMatch(flags("t1"), /<[^>]*\bUP\b/);
    close(made.fd);
    close(found.fd);
  });
});

test("TAP passes scattered frames and returns EAGAIN when it is empty", { skip }, () => {
  inOwnNamespace(() => {
    const tap = openTap({ name: "t0", vnetHeader: 0, offloads: 0, netns: NS, create: true });
    const memory = mapAnonymous(4096);
    const iov = new BigUint64Array(memory.view(0, 32));
    iov.set([BigInt(memory.address + 1024), 14n, BigInt(memory.address + 2048), 46n]);
    ip("-n", NS, "link", "set", "t0", "down");
    assert.equal(writev(tap.fd, memory.address, 2), -5, "EIO: the interface is down");
    ip("-n", NS, "link", "set", "t0", "up");
    assert.equal(writev(tap.fd, memory.address, 2), 60);
    let n = 1;
    for (let i = 0; i < 1000 && n > 0; i++) n = readv(tap.fd, memory.address, 2);
    assert.equal(n, -11);
    close(tap.fd);
    assert.equal(writev(tap.fd, memory.address, 2), -9);
    memory.unmap();
  });
});

test("openTap errors say what to do", { skip }, () => {
  inOwnNamespace(() => {
    const base = { vnetHeader: 12, offloads: 0, netns: NS } as const;
    assert.throws(() => openTap({ ...base, name: "nope" }), {
      code: "ENODEV",
      message: /ip tuntap add/,
    });
    assert.throws(() => openTap({ ...base, name: "lo", create: true }), {
      code: "EINVAL",
      message: /not another type of interface/,
    });
    assert.throws(() => openTap({ ...base, name: "t0", netns: "no-such" }), {
      code: "ENOENT",
      message: /ip netns add no-such/,
    });
  });
});

test("openTap refuses invalid names, and offloads without a header", () => {
  const base = { vnetHeader: 0, offloads: 0 } as const;
  assert.throws(() => openTap({ ...base, name: "sixteen-bytes-xx" }), { code: "ENAMETOOLONG" });
  for (const name of ["", "a b", "a/b", "..", "t%d"]) {
    assert.throws(() => openTap({ ...base, name }), { code: "EINVAL" });
  }
  assert.throws(() => openTap({ ...base, name: "t0", offloads: TUN_F_CSUM }), { code: "EINVAL" });
});

test("inNetns returns to its namespace when the action throws", { skip }, () => {
  inOwnNamespace(() => {
    const home = libc.ifNameToIndex("lo");
    const fail = () => inNetns(NS, () => assert.fail("inside"));
    assert.throws(fail, /inside/);
    assert.equal(libc.ifNameToIndex("lo"), home);
    const tap = openTap({ name: "t1", vnetHeader: 0, offloads: 0, netns: NS, create: true });
    assert.equal(libc.ifNameToIndex("t1"), 0);
    close(tap.fd);
  });
});
