/** Runs the passes in their order. */
import type { Func } from "../ir.ts";
import { dropDead, shareCommon } from "./common.ts";
import { reduceInduction } from "./induction.ts";
import { simplify } from "./simplify.ts";
import { simplifyTests } from "./tests.ts";
import { reuseKnown, threadJumps } from "./thread.ts";

export function optimise(func: Func): void {
  simplify(func);
  while (threadJumps(func)) simplify(func);
  shareCommon(func);
  reduceInduction(func);
  shareCommon(func);
  simplify(func);
  simplifyTests(func);
  dropDead(func);
  reuseKnown(func);
}
