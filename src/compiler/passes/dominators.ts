/** Dominators (Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm", 2001). */
import { type Block, type Func, reversePostorder } from "../ir.ts";

export interface Dominators {
  readonly order: readonly Block[];
  /** The nearest block on every path to this one; the entry's is itself. */
  readonly idom: ReadonlyMap<Block, Block>;
  readonly children: ReadonlyMap<Block, readonly Block[]>;
}

export function dominators(func: Func): Dominators {
  const order = reversePostorder(func);
  const number = new Map(order.map((block, i) => [block, i]));
  const idom = new Map<Block, Block>([[func.entry, func.entry]]);
  const meet = (x: Block, y: Block): Block => {
    let [a, b] = [x, y];
    while (a !== b) {
      while (number.get(a)! > number.get(b)!) a = idom.get(a)!;
      while (number.get(b)! > number.get(a)!) b = idom.get(b)!;
    }
    return a;
  };
  for (let changed = true; changed; ) {
    changed = false;
    for (const block of order.slice(1)) {
      const known = block.preds.filter((pred) => idom.has(pred));
      const next = known.reduce(meet);
      if (idom.get(block) !== next) {
        idom.set(block, next);
        changed = true;
      }
    }
  }
  const children = new Map<Block, Block[]>(order.map((block) => [block, []]));
  for (const block of order.slice(1)) children.get(idom.get(block)!)!.push(block);
  return { order, idom, children };
}

export function dominates(d: Dominators, a: Block, b: Block): boolean {
  for (let at = b; ; at = d.idom.get(at)!) {
    if (at === a) return true;
    if (at === d.idom.get(at)) return false;
  }
}
