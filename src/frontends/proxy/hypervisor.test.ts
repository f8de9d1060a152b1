/**
 * The machine's end against backends that answer wrongly: replies are sent before they are asked
 * for.
 */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openFds } from "../../../test/support/os.ts";
import { message, words } from "../../../test/support/proxy.ts";
import { PROGRAM_NAMES } from "../../abi/index.ts";
import { programsOf } from "../../devices/program-set.ts";
import { sring } from "../../devices/sring/host.ts";
import { close } from "../../os/fd.ts";
import { createFileMemfd, mapAnonymous } from "../../os/memory.ts";
import { connectUnix, sendMessage } from "../../os/unix-socket.ts";
import { BackendError, ProxyHypervisor, RefusedError } from "./hypervisor.ts";
import { readProgramObject, writeProgramObject } from "./program-object.ts";

const folder = mkdtempSync(join(tmpdir(), "bpfhv-hypervisor-"));
after(() => rmSync(folder, { recursive: true, force: true }));

test("its socket's file goes with it, but not one that somebody else has put there", () => {
  const path = join(folder, "file");
  const first = new ProxyHypervisor(path);
  first.close();
  assert.equal(existsSync(path), false);
  const second = new ProxyHypervisor(path);
  unlinkSync(path);
  writeFileSync(path, "");
  second.close();
  assert.equal(existsSync(path), true);
  unlinkSync(path);
});

/** A hypervisor whose backend has already said all it will ever say. */
function withReplies(
  replies: [Uint8Array, number[]?][],
  action: (hypervisor: ProxyHypervisor) => void,
  thenClose = true,
): void {
  const before = openFds();
  const hypervisor = new ProxyHypervisor(join(folder, "s"));
  const buffer = mapAnonymous(4096);
  const backend = connectUnix(hypervisor.path);
  try {
    assert.ok(hypervisor.accept(1000));
    for (const [bytes, fds] of replies) {
      new Uint8Array(buffer.view(0, 4096)).set(bytes);
      sendMessage(backend, buffer.address, bytes.length, fds);
    }
    if (thenClose) close(backend);
    action(hypervisor);
  } finally {
    hypervisor.close();
    if (!thenClose) close(backend);
    buffer.unmap();
  }
  assert.equal(openFds(), before, "descriptors");
}

test("a right reply is taken, an error reply is a refusal, and the connection goes on", () => {
  withReplies(
    [[message(1, words(0x1ff, 0))], [message(2, undefined, 9)], [message(1, words(7, 0))]],
    (hypervisor) => {
      assert.equal(hypervisor.request("GET_FEATURES").payload.getUint32(0, true), 0x1ff);
      assert.throws(() => hypervisor.setFeatures(1), RefusedError);
      assert.equal(hypervisor.request("GET_FEATURES").payload.getUint32(0, true), 7);
    },
    false,
  );
});

test("no reply in time: the backend is disconnected", () => {
  const hypervisor = new ProxyHypervisor(join(folder, "silent"), { replyMs: 50 });
  const backend = connectUnix(hypervisor.path);
  assert.ok(hypervisor.accept(1000));
  assert.throws(() => hypervisor.request("GET_FEATURES"), /no reply to GET_FEATURES within 50 ms/);
  assert.equal(hypervisor.connected, false);
  hypervisor.close();
  close(backend);
});

const WRONG: Record<string, Uint8Array> = {
  "of another type": message(2, words(0, 0)),
  "of another version": message(1, words(0, 0), 2),
  "too short": message(1, words(0)),
  "too long": message(1, words(0, 0, 0)),
  "without its payload": message(1),
  "with an error and a payload": message(1, words(0, 0), 9),
  "of a size that no message has": words(1, 1, 4096),
  "that ends in the middle": message(1, words(0, 0)).slice(0, 15),
};

for (const [what, bytes] of Object.entries(WRONG)) {
  test(`a reply ${what}: the backend is disconnected`, () => {
    withReplies(
      [[bytes]],
      (hypervisor) => {
        assert.throws(() => hypervisor.request("GET_FEATURES"), BackendError);
        assert.equal(hypervisor.connected, false);
        assert.throws(() => hypervisor.request("GET_FEATURES"), /no backend is connected/);
      },
      what !== "that ends in the middle",
    );
  });
}

test("descriptors come with GET_PROGRAMS only, one of them; others are closed", () => {
  const fd = createFileMemfd("x", Uint8Array.of(1));
  withReplies(
    [
      [message(1, words(0, 0)), [fd, fd]],
      [message(4), [fd, fd, fd]],
      [message(4, undefined, 9), [fd]],
    ],
    (hypervisor) => {
      assert.equal(hypervisor.request("GET_FEATURES").fd, -1);
      const { fd: programs } = hypervisor.request("GET_PROGRAMS");
      assert.ok(programs >= 0);
      close(programs);
      assert.throws(() => hypervisor.request("GET_PROGRAMS"), RefusedError);
    },
    false,
  );
  close(fd);
});

test("program objects: written and read back; what is cut, or is none, is refused", () => {
  const set = programsOf(sring, { bufs: 64, form: "v1" });
  const fd = writeProgramObject(() => set);
  const back = readProgramObject(fd);
  close(fd);
  for (const [id, code] of set.code) assert.deepEqual(back.code.get(id), Uint8Array.from(code));
  assert.equal(back.code.size, PROGRAM_NAMES.length - 2, "all but the optional ones");

  for (const bytes of [
    new Uint8Array(0),
    new Uint8Array(64),
    Uint8Array.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, ...new Uint8Array(90).fill(0xff)]),
  ]) {
    const bad = createFileMemfd("bad", bytes);
    assert.throws(() => readProgramObject(bad), { code: "PROGRAMS" });
    close(bad);
  }
});
