import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Action, ApplyFailed, apply, ChangeRefused, inverse, plan, replaces } from "./plan.ts";
import { completeSpec, isField, readSpec, SpecError } from "./read-spec.ts";
import { FIELD_NAMES, type FieldName, fieldOf, type NicSpec } from "./spec.ts";

const SPEC = completeSpec({ socket: "/run/vm1.sock", maxMtu: 9000 });

/** Specs that differ from each other in what a running NIC takes. */
const specs = fc
  .record({
    port: fc.constantFrom("sink", "null", "loopback", "source:rate=10", "tap:tap0,netns=a"),
    mtu: fc.integer({ min: 68, max: 9000 }),
  })
  .map((fields): NicSpec => completeSpec({ ...SPEC, ...fields }));

/** A NIC as its worker knows it; the n-th change fails. */
class Fake {
  spec: NicSpec;
  readonly verbs: string[] = [];
  #left: number;
  constructor(spec: NicSpec, failsAt = Number.POSITIVE_INFINITY) {
    this.spec = spec;
    this.#left = failsAt;
  }
  readonly change = async ({ verb, field, to }: Action): Promise<void> => {
    if (this.#left-- === 0) throw new Error("no such interface");
    this.verbs.push(verb);
    this.spec = { ...this.spec, [field]: to };
  };
}

test("plan finds nothing to do when what runs is what is wanted", () => {
  fc.assert(fc.property(specs, (spec) => assert.deepEqual(plan(spec, { ...spec }), [])));
});

test("apply makes what is wanted of what runs, and its inverse restores it", async () => {
  await fc.assert(
    fc.asyncProperty(specs, specs, async (a, b) => {
      const nic = new Fake(a);
      const actions = plan(a, b);
      await apply(actions, nic.change);
      assert.deepEqual(nic.spec, b);
      const back = plan(b, a);
      assert.deepEqual(back, actions.map(inverse));
      await apply(back, nic.change);
      assert.deepEqual(nic.spec, a);
    }),
  );
});

test("apply undoes what it changed when a later action fails", async () => {
  await fc.assert(
    fc.asyncProperty(specs, specs, fc.nat(1), async (a, b, failsAt) => {
      const actions = plan(a, b);
      fc.pre(actions.length > failsAt);
      const nic = new Fake(a, failsAt);
      await assert.rejects(apply(actions, nic.change), (error: Error) => {
        assert.ok(error instanceof ApplyFailed);
        const { field } = actions[failsAt];
        assert.match(error.message, new RegExp(`no such interface .the ${field} stays as it was`));
        return true;
      });
      assert.deepEqual(nic.spec, a);
    }),
  );
});

test("apply says what is left changed when a change cannot be undone", async () => {
  const actions = plan(SPEC, { ...SPEC, port: "null", mtu: 1300 });
  let calls = 0;
  const change = async () => {
    if (++calls > 1) throw new Error("the NIC has ended");
  };
  await assert.rejects(apply(actions, change), /the mtu stays as it was; the port stays null: the/);
});

test("plan replaces programs and rings last, because that is not undone", () => {
  const wanted = { ...SPEC, device: "vring_packed", rxBufs: 64, port: "null", mtu: 1400 };
  const actions = plan(SPEC, wanted);
  assert.deepEqual(
    actions.map(({ field }) => field),
    ["port", "mtu", "device", "rxBufs"],
  );
  assert.deepEqual(actions.map(replaces), [false, false, true, true]);
});

/** Another valid value of each field. */
const OTHERS: Partial<{ [Name in FieldName]: NicSpec[Name] }> = {
  ...{ name: "other", socket: "/run/other.sock", device: "vring_packed", programs: "other" },
  ...{ policies: ["anti-spoof:mac"], maxMtu: 9001, mac: "52:54:00:00:00:09", queues: 2 },
  ...{ rxBufs: 512, txBufs: 512, offloads: [], interrupts: "msi", speed: 1, loop: "busy" },
  ...{ spin: 1, originalId: true, allowUnverified: true, allowUnsealed: true, answerDelay: 1 },
  ...{ acceptLoss: true },
};

test("a field that cannot change live is refused with the reason and what to do", () => {
  for (const name of FIELD_NAMES) {
    if (typeof fieldOf(name).change !== "string") continue;
    const wanted = { ...SPEC, [name]: OTHERS[name] };
    assert.throws(
      () => plan(SPEC, wanted),
      (error: Error) => {
        assert.ok(error instanceof ChangeRefused, name);
        assert.deepEqual(error.fields, [name]);
        const form =
          /^(\w+): cannot change from .+ to .+ while the NIC runs, because .+: stop it and start it again with(out)? --/;
        assert.equal(form.exec(error.message)?.[1], name, error.message);
        return true;
      },
    );
  }
  const wanted = { ...SPEC, speed: 1, port: "null", queues: 2 };
  const several = /^ChangeRefused: queues: [^;]*--queues 2; speed: .*--speed 1$/;
  assert.throws(() => plan(SPEC, wanted), several);
});

test("a wrong spec is refused with path, value, what is wrong and what to do", () => {
  const wrong: [unknown, RegExp][] = [
    [null, /^spec null: use an object of fields$/],
    [[], /^spec \[\]: use an object/],
    [{ mtuu: 5 }, /^mtuu 5: unknown field: there are name, socket, .*mtu/],
    [{ mtu: 67 }, /^mtu 67: use a whole number from 68 to 65535$/],
    [{ mtu: "1500" }, /^mtu 1500: use a whole number/],
    [{ mtu: 1500.5 }, /^mtu 1500\.5: use a whole number/],
    [{ queues: 9 }, /^queues 9: use a whole number from 1 to 8$/],
    [{ rxBufs: 17 }, /^rxBufs 17: use a power of two/],
    [{ port: "tape:x" }, /^port tape:x: unknown net "tape:x": use tap/],
    [{ port: "" }, /^port : use 1 to 8192 characters/],
    [{ mac: "1:2" }, /^mac 1:2: .*write six bytes as 52:/],
    [{ loop: "idle" }, /^loop idle: use adaptive or busy$/],
    [{ offloads: "tso" }, /^offloads tso: use a list of strings$/],
    [{ offloads: ["tso", "x"] }, /^offloads .*unknown offload "x": there are txcsum/],
    [{ policies: ["firewall"] }, /unknown policy "firewall": use anti-spoof:/],
    [{ policies: ["anti-spoof:mac,vlan=5000"] }, /VLAN "5000": use numbers/],
    [{ originalId: "yes" }, /^originalId yes: use true or false$/],
    [{ name: "../x" }, /^name \.\.\/x: use what matches/],
    [{ name: "x\u001b[2J" }, /^name x\?\[2J: use/],
    [JSON.parse('{"__proto__":{"mtu":1}}'), /^__proto__ \{"mtu":1\}: unknown field/],
  ];
  for (const [spec, message] of wrong) {
    assert.throws(() => readSpec(spec), { name: "SpecError", message }, JSON.stringify(spec));
  }
  const several = { mtu: 1, queues: 0, port: "x" };
  assert.throws(
    () => readSpec(several),
    (error: SpecError) => {
      assert.deepEqual(
        error.problems.map(({ path }) => path),
        ["mtu", "queues", "port"],
      );
      return true;
    },
  );
});

test("a spec is refused when its MTU is more than it can ever be, or it has no socket", () => {
  assert.throws(() => completeSpec({ mtu: 9001 }, SPEC), /mtu 9001: more than .* at most 9000/);
  assert.throws(() => completeSpec({ mtu: 1500 }), /^SpecError: socket: missing: give the path/);
});

test("readSpec accepts what it checks, whatever it is given", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...FIELD_NAMES), fc.anything()), (given) => {
      try {
        for (const name of Object.keys(readSpec(given))) assert.ok(isField(name));
      } catch (error) {
        assert.ok(error instanceof SpecError, String(error));
      }
    }),
  );
});

test("a default that follows from other fields stays when the spec of a running NIC is read", () => {
  const running = completeSpec({ socket: "/run/vm1.sock", mac: "52:54:00:00:00:05", mtu: 9000 });
  assert.equal(running.name, "vm1");
  assert.equal(running.maxMtu, 9000);
  const wanted = completeSpec({ mtu: 1400 }, running);
  assert.deepEqual(
    plan(running, wanted).map(({ verb, to }) => [verb, to]),
    [["set-mtu", 1400]],
  );
});
