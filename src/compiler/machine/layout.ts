/** Orders blocks with as few jumps as possible, and encodes them. */
import {
  encodeProgram,
  type Instruction,
  makeInstruction,
  slotsOf,
} from "../../ebpf/instruction.ts";
import type { JumpOp } from "../../ebpf/opcode.ts";
import { checkStructure } from "../../ebpf/structure.ts";
import type { MachineBlock, MachineFunction, MachineInstruction } from "./code.ts";

const INVERSE: Readonly<Partial<Record<JumpOp, JumpOp>>> = {
  ...{ eq: "ne", ne: "eq", gt: "le", le: "gt", ge: "lt", lt: "ge" },
  ...{ sgt: "sle", sle: "sgt", sge: "slt", slt: "sge" },
};
/** Exit blocks up to this length are duplicated instead of jumped to. */
const REPEATED = 2;

export interface Encoded {
  readonly code: Uint8Array;
  /** Source position of each slot at which it changes. */
  readonly positions: ReadonlyMap<number, number>;
}

/** Encodes the functions of a program, its own first. */
export function encode(functions: readonly MachineFunction[]): Encoded {
  const rows = functions.flatMap((func) => {
    skipEmpty(func);
    shareEnds(func);
    return withoutDead(emitRows(placed(func)));
  });
  const starts = new Map<MachineBlock, number>();
  let slot = 0;
  for (const row of rows) {
    starts.set(row.block, slot);
    for (const { instruction } of row.items) slot += instruction.operation.kind === "wide" ? 2 : 1;
  }
  const instructions: Instruction[] = [];
  const positions = new Map<number, number>();
  slot = 0;
  for (const { items } of rows) {
    for (const { instruction, target } of items) {
      const fields = { ...instruction };
      if (target !== undefined) fields.offset = starts.get(target)! - slot - 1;
      if (instruction.callee !== undefined) {
        fields.imm = starts.get(functions[instruction.callee]!.entry)! - slot - 1;
      }
      const made = makeInstruction(instruction.operation, fields, slot);
      instructions.push(made);
      positions.set(slot, instruction.at);
      slot += slotsOf(made);
    }
  }
  checkStructure(instructions);
  return { code: encodeProgram(instructions), positions };
}

/** Redirects jumps to empty blocks to their successors. */
function skipEmpty(func: MachineFunction): void {
  const past = (block: MachineBlock): MachineBlock => {
    let at = block;
    for (let hops = 0; hops < func.blocks.length; hops++) {
      if (at.code.length > 0 || at.jump !== undefined || at.next === undefined) break;
      at = at.next;
    }
    return at;
  };
  for (const block of func.blocks) {
    if (block.next) block.next = past(block.next);
    if (block.taken) block.taken = past(block.taken);
    if (block.taken !== undefined && block.taken === block.next) {
      delete block.taken;
      delete block.jump;
    }
  }
}

/** Merges equal exit blocks. */
function shareEnds(func: MachineFunction): void {
  const known = new Map<string, MachineBlock>();
  const replaced = new Map<MachineBlock, MachineBlock>();
  for (const block of func.blocks) {
    if (block.next !== undefined || block.code.length > REPEATED) continue;
    const key = JSON.stringify(block.code.map(({ at: _, ...rest }) => rest));
    const first = known.get(key);
    if (first === undefined) known.set(key, block);
    else replaced.set(block, first);
  }
  for (const block of func.blocks) {
    if (block.next) block.next = replaced.get(block.next) ?? block.next;
    if (block.taken) block.taken = replaced.get(block.taken) ?? block.taken;
  }
}

function placed(func: MachineFunction): MachineBlock[] {
  const preds = new Map<MachineBlock, number>();
  const reached = new Set<MachineBlock>();
  const visit = (block: MachineBlock): void => {
    preds.set(block, (preds.get(block) ?? 0) + 1);
    if (reached.has(block)) return;
    reached.add(block);
    if (block.next) visit(block.next);
    if (block.taken) visit(block.taken);
  };
  visit(func.entry);
  const order = new Set<MachineBlock>();
  const pending: MachineBlock[] = [func.entry];
  for (let start = pending.pop(); start !== undefined; start = pending.pop()) {
    for (let at: MachineBlock | undefined = start; at && !order.has(at); ) {
      order.add(at);
      const options: MachineBlock[] = [at.next, at.taken].filter(
        (b) => b !== undefined && !order.has(b),
      ) as MachineBlock[];
      options.sort((a, b) => rank(a, preds) - rank(b, preds));
      for (const other of options.slice(1)) pending.push(other);
      at = options[0];
    }
  }
  return [...order];
}

/** Ranks candidates for the next block: first those without other predecessors, exits last. */
function rank(block: MachineBlock, preds: ReadonlyMap<MachineBlock, number>): number {
  const end = block.next === undefined && block.code.length <= REPEATED ? 2 : 0;
  return end + (preds.get(block)! > 1 ? 1 : 0);
}

interface Item {
  readonly instruction: MachineInstruction;
  readonly target?: MachineBlock;
}
interface Row {
  readonly block: MachineBlock;
  readonly items: Item[];
}

function emitRows(order: readonly MachineBlock[]): Row[] {
  return order.map((block, i) => {
    const following = order[i + 1];
    const items: Item[] = block.code.map((instruction) => ({ instruction }));
    const { jump, taken, next } = block;
    if (jump === undefined || taken === undefined) {
      if (next !== undefined && next !== following) items.push(...goto(next, block.at));
      return { block, items };
    }
    const turned = taken === following && next !== undefined ? inverted(jump) : undefined;
    if (turned !== undefined) items.push({ instruction: turned, target: next! });
    else {
      items.push({ instruction: jump, target: taken });
      if (next !== undefined && next !== following) items.push(...goto(next, block.at));
    }
    return { block, items };
  });
}

/** Drops blocks that were duplicated everywhere: verifiers refuse unreachable code. */
function withoutDead(rows: readonly Row[]): Row[] {
  const targets = new Set(rows.flatMap((row) => row.items.map((item) => item.target)));
  return rows.filter((row, i) => {
    const before = i === 0 ? undefined : rows[i - 1]!.block;
    return (
      i === 0 || targets.has(row.block) || before?.next === row.block || before?.taken === row.block
    );
  });
}

function goto(target: MachineBlock, at: number): Item[] {
  if (target.next === undefined && target.code.length <= REPEATED) {
    return target.code.map((instruction) => ({ instruction }));
  }
  const operation = { kind: "goto", long: false } as const;
  return [{ instruction: { operation, dst: 0, src: 0, imm: 0, offset: 0, high: 0, at }, target }];
}

function inverted(jump: MachineInstruction): MachineInstruction | undefined {
  const { operation } = jump;
  if (operation.kind !== "jump") return undefined;
  const op = INVERSE[operation.op];
  return op === undefined ? undefined : { ...jump, operation: { ...operation, op } };
}
