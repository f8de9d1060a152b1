/** TCP between a guest and its namespace, with every byte checked at the receiver. */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import type { NicGuest } from "./nic-guest.ts";
import { patience, within } from "./time.ts";

const PORT = 5301;
const TRANSFER_MS = 60_000;

/**
 * Program of the host. Sends random bytes to the one guest that connects and receives the given
 * number of bytes. Prints "ready", and at the end both digests.
 */
const PEER = `
const { createHash, randomBytes } = require("node:crypto");
const [address, port, down, up] = process.argv.slice(1);
const digest = (data) => createHash("sha256").update(data).digest("hex");
require("node:net").createServer({ allowHalfOpen: true }, (socket) => {
  const sent = randomBytes(Number(down));
  const chunks = [];
  let missing = Number(up);
  const done = () => missing === 0 && console.log(digest(sent), digest(Buffer.concat(chunks)));
  socket.on("data", (chunk) => {
    chunks.push(chunk);
    missing -= chunk.length;
    done();
  });
  socket.on("error", (error) => console.log(String(error)));
  done();
  socket.end(sent);
}).listen(Number(port), address, () => console.log("ready"));
`;

/**
 * Sends random bytes each way at the same time. In the guest `cat` transfers them: unlike nc, it
 * writes a file to a socket in large pieces. `prefix` is for the guest's command: taskset.
 * @throws AssertionError if a byte was lost or changed
 */
export async function transferChecked(
  { guest, netns, link }: NicGuest,
  { upMiB = 0, downMiB = 0, prefix = "" },
): Promise<void> {
  const size = [link.host, PORT, downMiB << 20, upMiB << 20].map(String);
  const child = netns.spawn([process.execPath, "-e", PEER, ...size]);
  child.stderr?.resume();
  const nextLine = linesOf(child);
  try {
    assert.equal(await nextLine(), "ready");
    const script = [
      "cd /tmp",
      `dd if=/dev/urandom of=up bs=1M count=${upMiB} 2>/dev/null`,
      "printf '#!/bin/sh\\ncat /tmp/up & cat >/tmp/down; wait\\n' >both && chmod +x both",
      `${prefix} nc ${link.host} ${PORT} -e /tmp/both`,
      "sha256sum up down | cut -d ' ' -f 1; rm -f up down",
    ].join("\n");
    const output = await guest.check(script, { timeoutMs: TRANSFER_MS });
    const [up, down] = output.trim().split("\n");
    const [sent, received] = (await nextLine()).split(" ");
    assert.equal(received, up, "bytes from the guest to the host");
    assert.equal(down, sent, "bytes from the host to the guest");
    const nothing = createHash("sha256").digest("hex");
    assert.deepEqual([up === nothing, down === nothing], [upMiB === 0, downMiB === 0]);
  } finally {
    child.kill("SIGKILL");
  }
}

function linesOf(child: ChildProcess): () => Promise<string> {
  let text = "";
  let wake = () => {};
  child.stdout?.on("data", (chunk) => {
    text += chunk;
    wake();
  });
  const next = async (): Promise<string> => {
    while (!text.includes("\n")) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const end = text.indexOf("\n");
    const line = text.slice(0, end);
    text = text.slice(end + 1);
    return line;
  };
  return () => within(patience(TRANSFER_MS), "a line of the host's end", next());
}
