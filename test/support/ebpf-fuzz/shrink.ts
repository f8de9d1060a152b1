/** Shrinks a program that shows a failure by removing parts. */
import type { FuzzProgram, Node } from "./program.ts";

/**
 * Returns the smallest program found for which `fails` holds. It must hold for `program` itself.
 */
export function shrink(
  program: FuzzProgram,
  fails: (smaller: FuzzProgram) => boolean,
): FuzzProgram {
  let smallest = program;
  for (let again = true; again; ) {
    again = false;
    for (const smaller of variants(smallest)) {
      if (!fails(smaller)) continue;
      smallest = smaller;
      again = true;
      break;
    }
  }
  return smallest;
}

/** Yields all programs with one part less. */
function* variants({ functions }: FuzzProgram): Generator<FuzzProgram> {
  for (const [f, changed] of functions.entries()) {
    for (const body of shorter(changed.body)) {
      yield { functions: functions.with(f, { ...changed, body }) };
    }
  }
}

function* shorter(nodes: readonly Node[]): Generator<Node[]> {
  for (const [n, node] of nodes.entries()) {
    yield nodes.toSpliced(n, 1);
    for (const replacement of simpler(node)) yield nodes.toSpliced(n, 1, ...replacement);
  }
}

/** Yields replacements of a node. */
function* simpler(node: Node): Generator<Node[]> {
  switch (node.kind) {
    case "ops":
      for (let i = 0; node.ops.length > 1 && i < node.ops.length; i++) {
        yield [{ kind: "ops", ops: node.ops.toSpliced(i, 1) }];
      }
      return;
    case "if":
      yield node.then;
      yield node.else;
      for (const then of shorter(node.then)) yield [{ ...node, then }];
      for (const other of shorter(node.else)) yield [{ ...node, else: other }];
      return;
    case "loop":
      yield node.body;
      if (node.count > 1) yield [{ ...node, count: 1 }];
      for (const body of shorter(node.body)) yield [{ ...node, body }];
      return;
    case "graph":
      if (node.fuel > 1) yield [{ ...node, fuel: node.fuel - 1 }];
      for (const [b, block] of node.blocks.entries()) {
        yield block.body;
        for (const body of shorter(block.body)) {
          yield [{ ...node, blocks: node.blocks.with(b, { ...block, body }) }];
        }
      }
      return;
    case "call":
      return;
  }
}
