/** A well-behaved driver, after a misbehaving one. */
import { type Bench, frameOf, numberOf } from "../../support/guest.ts";
import { expect } from "../target.ts";

const FRAMES = "0,1,2,3";

/**
 * Checks that four packets go each way through a bench that
 * has just been opened. @throws Find if not
 */
export function expectPackets(bench: Bench): void {
  const [port] = bench.ports;
  port!.sent.length = 0;
  for (let n = 0; n < 4; n++) {
    expect(bench.driver.send(0, frameOf(n)), () => "a good driver finds its ring full at once");
    port!.incoming.push(frameOf(n));
  }
  bench.settle();
  const sent = port!.sent.map(numberOf).join();
  const received = bench.take().map(numberOf).join();
  expect(sent === FRAMES, () => `a good driver sent ${FRAMES}, and "${sent}" came out`);
  expect(received === FRAMES, () => `${FRAMES} came in, a good driver received "${received}"`);
}
