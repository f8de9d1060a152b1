/** The host's half of replacing a set: what a guest does out of order, and in the middle of it. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FULL } from "../../test/support/guest.ts";
import { Live, randomFrom } from "../../test/support/live.ts";
import { ABILITY, ANSWER, EVENT, Q_CMD, REG, VERDICT } from "../abi/index.ts";
import { FORMATS } from "../devices/registry.ts";
import { sring } from "../devices/sring/host.ts";
import { sringGso } from "../devices/sring_gso/host.ts";
import { vringPacked } from "../devices/vring_packed/host.ts";
import { saveNic } from "./persist.ts";

const SMALL = { rxBufs: 16, txBufs: 16 };
const read = ({ local }: Live, register: number): number => local.read(0, register);
const write = ({ local }: Live, register: number, value: number): void =>
  local.write(0, register, value >>> 0);

function live(device = sring, pairs = 1): Live {
  const made = new Live({ device, pairs, bufs: 16, mib: 16 });
  made.driver.open();
  return made;
}

/** Packets flow in both directions, and arrive by the rings of the current set. */
function flows(guest: Live, what: string): void {
  for (const [queue, port] of guest.ports.entries()) {
    port.waiting += 5;
    for (let n = 0; n < 5; n++) assert.ok(guest.send(queue), what);
  }
  guest.check(what);
}

/** @returns what was refused, as many times as each reason was counted */
function refusals(guest: Live, act: () => void): number {
  const { counts } = guest.nic.refusals;
  const before = counts.upgrade + counts.context + counts.features + counts.blob + counts.register;
  act();
  return counts.upgrade + counts.context + counts.features + counts.blob + counts.register - before;
}

function stepUntil(guest: Live, phase: string): void {
  for (let n = 0; guest.driver.upgrade.phase !== phase; n++) {
    assert.ok(n < 100, `not in ${phase} after 100 steps`);
    guest.step();
  }
}

/** The driver takes what is staged, or finishes what it has begun. */
function finish(guest: Live): void {
  for (let n = 0; guest.step(); n++) {
    assert.ok(n < 60, `stuck in ${guest.driver.upgrade.phase}`);
    guest.local.turn();
    for (const queue of guest.ports.keys()) guest.take(queue);
  }
}

/** Writes that fit no moment at which the set is not being cut. */
const OUT_OF_ORDER: readonly (readonly [string, number, number])[] = [
  ["transmit cut", REG.Q_CMD, (Q_CMD.TX_CUT << 16) | 1],
  ["receive cut", REG.Q_CMD, Q_CMD.RX_CUT << 16],
  ["cut of a queue of the other direction", REG.Q_CMD, Q_CMD.TX_CUT << 16],
  ["cut of a queue that is not there", REG.Q_CMD, (Q_CMD.RX_CUT << 16) | 9],
  ["retirement of a ring that is in use", REG.Q_CMD, (Q_CMD.RETIRE << 16) | 1],
  ["unknown command", REG.Q_CMD, 3 << 16],
  ["command of all ones", REG.Q_CMD, 0xffffffff],
  ["verdict on another set", REG.SET_VERDICT, 77 << 8],
  ["refusal of another set", REG.SET_VERDICT, (77 << 8) | VERDICT.MEMORY],
  ["verdict with an unknown code", REG.SET_VERDICT, (2 << 8) | 9],
  ["view of a third set", REG.SET_VIEW, 2],
];

describe("guest's writes out of order", () => {
  test("are refused and counted when no set is staged", () => {
    const guest = live();
    for (const [what, register, value] of OUT_OF_ORDER) {
      assert.equal(
        refusals(guest, () => write(guest, register, value)),
        1,
        what,
      );
      flows(guest, what);
    }
    assert.equal(
      refusals(guest, () => write(guest, REG.SET_VIEW, 1)),
      1,
    );
    assert.equal(read(guest, REG.SET_VIEW), 0);
    guest.close();
  });

  test("are refused and counted when a set is staged and the guest has not judged it", () => {
    const guest = live();
    guest.local.replace(sringGso, SMALL);
    for (const [what, register, value] of OUT_OF_ORDER) {
      assert.equal(
        refusals(guest, () => write(guest, register, value)),
        1,
        what,
      );
    }
    const ready = () => write(guest, REG.SET_VERDICT, guest.nic.wanted!.id << 8);
    assert.equal(refusals(guest, ready), 1, "ready without contexts");
    assert.match(guest.nic.refusals.last, /queue rx0 has no context of the next set/);
    assert.equal(read(guest, REG.SET_VERDICT), ANSWER.PENDING);
    flows(guest, "staged");
    stepUntil(guest, "drain");
    finish(guest);
    flows(guest, "taken all the same");
    guest.close();
  });

  test("are refused and counted when the guest has agreed", () => {
    const guest = live();
    guest.local.replace(sringGso, SMALL);
    stepUntil(guest, "cut");
    const { id } = guest.nic.wanted!;
    const refused: readonly (readonly [string, number, number])[] = [
      ["ready twice", REG.SET_VERDICT, id << 8],
      ["refusal after ready", REG.SET_VERDICT, (id << 8) | VERDICT.ABORT],
      ["retirement before the cut", REG.Q_CMD, (Q_CMD.RETIRE << 16) | 1],
    ];
    for (const [what, register, value] of refused) {
      assert.equal(
        refusals(guest, () => write(guest, register, value)),
        1,
        what,
      );
    }
    write(guest, REG.SET_VIEW, 1);
    assert.equal(
      refusals(guest, () => write(guest, REG.FEATURES, 0)),
      1,
      "features after ready",
    );
    assert.equal(
      refusals(guest, () => write(guest, REG.PAGES_HI, 0)),
      1,
      "contexts after ready",
    );
    write(guest, REG.SET_VIEW, 0);
    assert.equal(guest.nic.upgrade.withdraw("too late"), false);
    guest.ports[0].room = 0;
    for (let n = 0; n < 4; n++) guest.send(0);
    guest.step();
    const cut = (Q_CMD.TX_CUT << 16) | 1;
    assert.equal(
      refusals(guest, () => write(guest, REG.Q_CMD, cut)),
      1,
      "the same cut twice",
    );
    const retire = (Q_CMD.RETIRE << 16) | 1;
    assert.equal(
      refusals(guest, () => write(guest, REG.Q_CMD, retire)),
      1,
      "before drained",
    );
    assert.equal(read(guest, REG.Q_DRAINED), 0);
    guest.ports[0].room = 100;
    guest.settle();
    assert.equal(read(guest, REG.Q_DRAINED), 2);
    finish(guest);
    flows(guest, "after all of it");
    guest.close();
  });

  test("of registers that show a withdrawn set touch neither the current nor the next one", () => {
    const guest = live();
    guest.local.replace(sringGso, SMALL);
    write(guest, REG.SET_VIEW, 1);
    guest.nic.upgrade.withdraw("for the test");
    guest.local.replace(vringPacked, { rxBufs: 64, txBufs: 64 });
    assert.equal(read(guest, REG.RX_CTX_SIZE), 0);
    assert.equal(
      refusals(guest, () => write(guest, REG.PAGES_HI, 0)),
      1,
    );
    assert.equal(
      refusals(guest, () => write(guest, REG.FEATURES, 0)),
      1,
    );
    assert.equal(
      refusals(guest, () => write(guest, REG.BLOB_HI, 0)),
      1,
    );
    write(guest, REG.SET_VIEW, 1);
    assert.equal(read(guest, REG.RX_CTX_SIZE), vringPacked.contextSize(64));
    write(guest, REG.SET_VIEW, 0);
    assert.equal(read(guest, REG.RX_CTX_SIZE), sring.contextSize(16));
    flows(guest, "all the while");
    guest.close();
  });

  test("do not keep the host at a retiring ring when the guest goes on publishing to it", () => {
    const guest = live();
    guest.local.replace(sringGso, SMALL);
    stepUntil(guest, "cut");
    const old = guest.driver.tx[0];
    guest.step();
    const { tx } = guest.local.pairs[0];
    assert.ok(tx.draining);
    let turns = 0;
    for (; tx.draining; turns++) {
      assert.ok(turns < 100, "the host is still there");
      old.reset();
      old.publish(1, 64);
      guest.local.turn();
      while (old.collect(() => {}) > 0);
    }
    assert.ok(turns > 1, `${turns} turns`);
    guest.close();
  });
});

describe("set that is not taken", () => {
  const ends: readonly (readonly [string, (guest: Live) => void, RegExp])[] = [
    ["is withdrawn", ({ nic }) => void nic.upgrade.withdraw("no more"), /^no more$/],
    [
      "is not judged in time",
      ({ nic }) => nic.upgrade.expire(performance.now() + 10_001),
      /has not answered in time/,
    ],
    [
      "is refused by the guest",
      (guest) => {
        write(guest, REG.VERDICT_INFO, (2 << 24) | 17);
        write(guest, REG.SET_VERDICT, (guest.nic.wanted!.id << 8) | VERDICT.REFUSED);
      },
      /^the guest refused a program \(program \w+, instruction 17\)$/,
    ],
  ];
  for (const [what, end, reason] of ends) {
    test(`changes nothing when it ${what}`, () => {
      const guest = live();
      guest.local.replace(vringPacked, SMALL);
      assert.equal(read(guest, REG.EVENT), EVENT.STAGED | EVENT.LINK_OR_MTU);
      write(guest, REG.EVENT, EVENT.STAGED);
      for (let n = 0; n < 4; n++) guest.step();
      assert.ok(guest.nic.queues.some(({ next }) => next !== null));
      end(guest);
      const { report } = guest.nic.upgrade;
      assert.match(report?.reason ?? "", reason);
      assert.ok(guest.nic.queues.every(({ next }) => next === null));
      assert.deepEqual([read(guest, REG.SET_NEXT), read(guest, REG.SET_CUR)], [0, 1]);
      assert.equal(read(guest, REG.SET_VERDICT), ANSWER.WITHDRAWN);
      assert.ok(read(guest, REG.EVENT) & EVENT.WITHDRAWN);
      flows(guest, what);
      finish(guest);
      assert.equal(guest.driver.upgrade.counters.dropped, 1);
      flows(guest, "the driver has noticed");
      guest.close();
    });
  }

  test("is refused with the instruction when the driver's verifier refuses it", () => {
    const guest = live();
    guest.driver.upgrade.judge = () => ({ code: VERDICT.REFUSED, info: (6 << 24) | 3 });
    guest.local.replace(vringPacked, SMALL);
    while (guest.nic.upgrade.phase !== "idle") guest.step();
    assert.match(guest.nic.upgrade.report!.reason, /\(program \w+, instruction 3\)/);
    flows(guest, "the old set");
    guest.close();
  });
});

/** What ends or interrupts a replacement, and how the guest goes on. */
const INTERRUPTIONS: readonly (readonly [string, (guest: Live) => void])[] = [
  [
    "guest disables the NIC and enables it again",
    ({ driver }) => {
      driver.close();
      driver.reopen();
    },
  ],
  [
    "NIC is reset",
    (guest) => {
      guest.nic.reset();
      guest.rebind();
    },
  ],
  [
    "client goes and another one comes",
    (guest) => {
      const { host } = guest.nic;
      guest.nic.detach();
      guest.nic.attach(host!);
      guest.nic.busMasterChanged(true);
      guest.rebind();
    },
  ],
  [
    "bus mastering is off for a while",
    ({ nic }) => {
      nic.busMasterChanged(false);
      nic.busMasterChanged(true);
    },
  ],
  [
    "guest's memory is away for a while",
    ({ nic, memory }) => {
      memory.setVisible(false);
      nic.memoryChanged();
      memory.setVisible(true);
      nic.memoryChanged();
    },
  ],
];

describe("replacement in the middle", () => {
  /** Steps of the driver: idle, 3 of stage, 2 of prime, 2 cuts, drain. */
  const STEPS = 10;
  for (const [what, interrupt] of INTERRUPTIONS) {
    test(`leaves the old set or the new one, whole, when the ${what}`, () => {
      const ends = new Set<string>();
      for (let steps = 0; steps <= STEPS; steps++) {
        const guest = live(sring);
        guest.local.replace(vringPacked, SMALL);
        for (let n = 0; n < steps; n++) guest.step();
        flows(guest, `${steps} steps`);
        const { agreed } = guest.nic.upgrade;
        interrupt(guest);
        const { running, upgrade, wanted } = guest.nic;
        flows(guest, `${what} after ${steps} steps`);
        if (upgrade.phase === "idle") {
          assert.equal(wanted, null);
          assert.ok(!agreed || running.format === vringPacked, "agreed means done");
        }
        finish(guest);
        assert.ok(guest.nic.queues.every(({ next, retiring }) => next === null && !retiring));
        flows(guest, `${what} after ${steps} steps, and the end`);
        ends.add(guest.nic.running.format.name);
        // Another one is taken afterwards.
        guest.local.replace(sringGso, SMALL);
        finish(guest);
        assert.equal(guest.nic.running.format, sringGso);
        flows(guest, "the next one");
        guest.close();
      }
      assert.ok(ends.has(vringPacked.name));
    });
  }

  test("is not saved when a set is staged or half taken, and withdrawing makes it possible", () => {
    const guest = live();
    guest.local.replace(vringPacked, SMALL);
    assert.throws(() => saveNic(guest.nic), { code: "RECORD", message: /set 2 is being taken/ });
    assert.equal(guest.nic.upgrade.withdraw("the NIC is handed over"), true);
    assert.equal(saveNic(guest.nic).generation.id, 1);
    guest.local.replace(vringPacked, SMALL);
    // One step notices that the first one is gone.
    stepUntil(guest, "cut");
    guest.step();
    assert.throws(() => saveNic(guest.nic), { code: "RECORD" });
    stepUntil(guest, "drain");
    finish(guest);
    assert.equal(saveNic(guest.nic).generation.format, "vring_packed");
    guest.close();
  });

  test("is refused when the guest's interface is down or its driver lacks the ability", () => {
    const down = live();
    down.driver.close();
    assert.throws(() => down.local.replace(vringPacked), /interface is down/);
    down.close();
    const plain = new Live({ device: sring, overlap: false, mib: 16 });
    assert.equal(read(plain, REG.EXT_ACK) & ABILITY.OVERLAP, 0);
    plain.driver.open();
    assert.throws(() => plain.local.replace(vringPacked), /cannot replace programs while packets/);
    flows(plain, "nothing has changed");
    plain.close();
  });
});

test("set is taken at once when no driver has looked at the NIC", () => {
  const guest = live();
  guest.nic.reset();
  guest.local.replace(vringPacked, SMALL);
  assert.equal(guest.nic.running.format, vringPacked);
  guest.rebind();
  assert.equal(guest.driver.generation, 2);
  flows(guest, "the new set");
  guest.close();
});

test("no packet is lost when hosts and guests act in any order", () => {
  const ended = { taken: 0, dropped: 0 };
  for (let seed = 1; seed <= (FULL ? 200 : 12); seed++) {
    const random = randomFrom(seed);
    const guest = live(FORMATS[seed % 3], 1 + (seed % 2));
    for (let n = 0; n < 400; n++) {
      const queue = random(guest.ports.length);
      const { nic, driver, ports, local, memory } = guest;
      const acts = [
        () => guest.send(queue),
        () => guest.send(queue),
        () => (ports[queue].waiting += random(6)),
        () => local.turn(),
        () => local.turn(),
        () => guest.take(queue, 1 + random(8)),
        () => (ports[queue].room = random(8)),
        () => guest.step(),
        () => guest.step(),
        () => local.pairs[queue].armKicks() || local.pairs[queue].disarmKicks(),
        () => {
          if (nic.upgrade.phase === "idle") local.replace(FORMATS[random(3)], SMALL);
        },
        () => random(8) === 0 && nic.upgrade.withdraw("by chance"),
        () => {
          const code = random(6) === 0 ? VERDICT.MEMORY : VERDICT.READY;
          driver.upgrade.judge = () => ({ code, info: 0 });
        },
        () => {
          nic.busMasterChanged(false);
          local.turn();
          nic.busMasterChanged(true);
        },
        () => {
          memory.setVisible(false);
          nic.memoryChanged();
          local.turn();
          memory.setVisible(true);
          nic.memoryChanged();
        },
      ];
      acts[random(acts.length)]();
      local.pairs[queue].portWritable();
    }
    guest.check(`seed ${seed}`);
    ended.taken += guest.driver.upgrade.counters.taken;
    ended.dropped += guest.driver.upgrade.counters.dropped;
    guest.close();
  }
  assert.ok(ended.taken > 10 && ended.dropped > 5, JSON.stringify(ended));
});
