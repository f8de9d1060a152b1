/**
 * TCP at MTU 9000 beside 1500, over the same NICs in the same guest, in turns. Control: 1500,
 * measured before and after.
 */
import { withoutVm } from "../../test/support/vm/requirements.ts";
import type { Direction } from "../../test/support/vm/traffic.ts";
import type { Bench, Result, Sample, SampleOptions } from "../harness/bench.ts";
import { CARDS, withCards } from "../harness/guest-nics.ts";
import { markdown, valueCell } from "../harness/report.ts";

const DIRECTIONS: Readonly<Record<string, Direction>> = { out: "from guest", in: "to guest" };
const WAYS = Object.keys(DIRECTIONS);
const JUMBO = 9000;
const NORMAL = 1500;

async function sample(_part: string, { quick }: SampleOptions): Promise<Sample> {
  const seconds = quick ? 1 : 3;
  const values: Record<string, number> = {};
  const controls: Record<string, readonly [number, number]> = {};
  await withCards(
    async ({ guest, cards }) => {
      for (const { name, dev, link } of cards) {
        const at = async (mtu: number, way: string): Promise<number> => {
          await guest.check(`ip link set ${dev} mtu ${mtu}`);
          return link.tcp(DIRECTIONS[way]!, seconds);
        };
        for (const way of WAYS) {
          const first = await at(NORMAL, way);
          values[`${name}/${way}/${JUMBO}`] = await at(JUMBO, way);
          controls[`${name}/${way}`] = [first, await at(NORMAL, way)];
          values[`${name}/${way}/${NORMAL}`] = first;
        }
      }
    },
    { mtu: JUMBO },
  );
  return { values, controls };
}

function table(result: Result): string {
  const columns = WAYS.flatMap((way) => [NORMAL, JUMBO].map((mtu) => `${way}/${mtu}`));
  return markdown([
    ["NIC", ...WAYS.flatMap((way) => [`TCP ${way} at ${NORMAL}, Mb/s`, `at ${JUMBO} (ratio)`])],
    ...CARDS.map(({ name }) => [
      name,
      ...columns.map((column) => valueCell(result, `${name}/${column}`)),
    ]),
  ]);
}

export const bench: Bench = {
  name: "mtu",
  about: `TCP at MTU ${JUMBO} beside ${NORMAL}, in the guest`,
  vm: true,
  rounds: 3,
  limit: 0.2,
  seconds: 300,
  parts: ["all NICs"],
  rows: CARDS.flatMap(({ name }) =>
    WAYS.flatMap((way) => {
      const control = `${name}/${way}`;
      const normal = `${control}/${NORMAL}`;
      return [
        { name: normal, unit: "Mb/s", control },
        { name: `${control}/${JUMBO}`, unit: "Mb/s", control, baseline: normal },
      ];
    }),
  ),
  problem: async () => (await withoutVm()) || undefined,
  sample,
  tables: { "": table },
};
