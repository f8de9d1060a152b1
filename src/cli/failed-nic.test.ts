/** `bpfhv serve --config`: a NIC that fails ends alone, and the process says so. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { TestGuest } from "../../test/support/nics.ts";
import { until } from "../../test/support/os.ts";
import { ask, statusOf } from "../control/client.ts";
import { controlPath } from "../control/socket-path.ts";

const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bpfhv-failed-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string): string => join(folder, `${name}.sock`);

/** @param ports of the NICs, by name */
function serve(ports: Readonly<Record<string, string>>) {
  const file = join(folder, "vm.toml");
  const nics = Object.entries(ports).map(
    ([name, port]) => `[[nic]]\nname = "${name}"\nsocket = "${at(name)}"\nport = "${port}"\n`,
  );
  writeFileSync(file, nics.join(""));
  const child = spawn(process.execPath, [MAIN, "serve", "--config", file], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let err = "";
  child.stderr.on("data", (data) => {
    err += data;
  });
  const ended = new Promise<{ status: number | null; err: string }>((resolve) => {
    child.once("close", (status) => resolve({ status, err }));
  });
  return { child, ended };
}

test("serve moves packets of its other NICs when one cannot open its TAP", async () => {
  const { child, ended } = serve({ lan: "source", wan: "tap:bpfhv-none", dmz: "source" });
  try {
    for (const name of ["lan", "dmz"]) {
      await until(`status of ${name}`, () => statusOf(at(name)).catch(() => null));
      const guest = new TestGuest(at(name));
      await guest.move(300);
      guest.close();
    }
    assert.equal(existsSync(at("wan")), false);
    const { body } = await ask(controlPath(at("lan")), { path: "/v1/nics" });
    const { nics } = body as { nics: { name: string; state: string; failure: string | null }[] };
    const states = nics.map(({ name, state }) => `${name} ${state}`);
    assert.deepEqual(states, ["lan running", "wan failed", "dmz running"]);
    assert.match(nics[1].failure ?? "", /^open /);
    const wan = await ask(controlPath(at("lan")), { path: "/v1/nics/wan" });
    assert.deepEqual([wan.status, wan.body], [503, { error: nics[1].failure }]);
  } finally {
    child.kill("SIGTERM");
  }
  const { status, err } = await ended;
  assert.equal(status, 1, err);
  assert.match(err, /"level":"warn".*wan\.sock.*the NIC has failed: open /);
  assert.match(err, /bpfhv: 1 of 3 NICs failed \(wan: open /);
  for (const name of ["lan", "dmz"]) assert.equal(existsSync(at(name)), false);
});

test("serve ends with status 1 when every NIC fails", async () => {
  const { status, err } = await serve({ lan: "tap:bpfhv-none", wan: "tap:bpfhv-none" }).ended;
  assert.equal(status, 1);
  assert.match(err, /bpfhv: 2 of 2 NICs failed \(lan: open .*; wan: open /);
});
