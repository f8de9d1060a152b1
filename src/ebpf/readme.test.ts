/** The lines of this room's README, run. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { assembleText, disassemble, Interpreter } from "./index.ts";

test("the README's ten lines assemble, run and disassemble a program", () => {
  const code = assembleText(["r0 = *(u32 *)(r1 + 4)", "r0 *= 2", "exit"]);
  const bytes = new Uint8Array(8);
  bytes[4] = 21;
  const machine = new Interpreter(code, { regions: [{ name: "context", base: 0x10000, bytes }] });
  assert.equal(machine.run(0x10000n), 42n);
  assert.deepEqual(disassemble(code), [
    "   0: r0 = *(u32 *)(r1 + 4)",
    "   1: r0 *= 2",
    "   2: exit",
  ]);
});
