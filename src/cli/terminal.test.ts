/**
 * What people see at a terminal, which script(1) of util-linux makes: text in the log, and `top`
 * with its keys.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { statusOf } from "../control/client.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-terminal-"));
const children = new Set<ChildProcess>();
const missing = spawnSync("script", ["--version"]).error !== undefined;
const skip = missing ? "script(1) is not installed" : false;

after(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

/** A command in a terminal of its own. */
function atTerminal(words: readonly string[], size = "rows 12 columns 60") {
  const quoted = [process.execPath, MAIN, ...words].map((word) => `'${word}'`).join(" ");
  const child = spawn("script", ["-qec", `stty ${size}; exec ${quoted}`, "/dev/null"], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  children.add(child);
  let text = "";
  child.stdout.on("data", (chunk) => {
    text += chunk;
  });
  const ended = new Promise<void>((resolve) => {
    child.once("close", () => {
      children.delete(child);
      resolve();
    });
  });
  return { child, ended, text: () => text };
}

async function until(what: string, holds: () => unknown): Promise<void> {
  for (let n = 0; !(await Promise.resolve(holds()).catch(() => false)); n++) {
    assert.ok(n < 400, `${what} within 20 s`);
    await sleep(50);
  }
}

const stop = async (socket: string) => {
  const status = await statusOf(socket);
  process.kill((status as { pid: number }).pid, "SIGTERM");
};

describe("at a terminal", { skip }, () => {
  test("serve logs text that names time and NIC, and JSON with --log-json", async () => {
    const sockets = [join(folder, "text.sock"), join(folder, "json.sock")];
    const words = (socket: string) => ["serve", "--socket", socket, "--mtu", "60000"];
    const text = atTerminal(words(sockets[0]));
    const json = atTerminal([...words(sockets[1]), "--log-json"]);
    await until("text", () => /waiting for QEMU/.test(text.text()));
    await until("JSON", () => /waiting for QEMU/.test(json.text()));
    await Promise.all(sockets.map(stop));
    await Promise.all([text.ended, json.ended]);
    assert.match(text.text(), /^\d\d:\d\d:\d\d \S+text\.sock: sring on .*waiting for QEMU\r$/m);
    assert.match(text.text(), /text\.sock: warn: MTU 60000/);
    for (const line of json
      .text()
      .trim()
      .split(/[\r\n]+/)) {
      assert.equal(JSON.parse(line).nic, sockets[1]);
    }
  });

  test("top says what it does not show, scrolls, and quits with q", async () => {
    const names = ["a", "b", "c"].map((name) => join(folder, `${name}.sock`));
    const servers = names.map((socket) =>
      spawn(process.execPath, [MAIN, "serve", "--socket", socket], { stdio: "ignore" }),
    );
    for (const server of servers) children.add(server);
    for (const socket of names) {
      await until("an answer", () => statusOf(socket));
    }
    const { child, ended, text } = atTerminal(["top", "--interval", "0.2", ...names]);
    // Three NICs are 17 lines; ten fit.
    await until("the first NIC", () => /0 lines above, 7 below/.test(text()));
    assert.doesNotMatch(text(), /c\.sock/);
    child.stdin.write("\x1b[6~");
    await until("the last NIC", () => /7 lines above, 0 below/.test(text()));
    assert.match(text(), /c\.sock/);
    child.stdin.write("q");
    await Promise.race([ended, sleep(5000)]);
    assert.equal(children.has(child), false, "it ended");
    assert.ok(text().trimEnd().endsWith("\x1b[?25h"), "the cursor is back");
    for (const line of text().split(/\r*\n/)) {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what a terminal takes
      const seen = line.replace(/\x1b\[[?\d]*[A-Za-z]/g, "");
      assert.ok(seen.length <= 60, seen);
    }
    for (const server of servers) server.kill("SIGTERM");
  });
});
