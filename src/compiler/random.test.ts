// Random programs, compiled and run, beside an independent evaluator that knows BigInt and the rules only.
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { struct, u8, u16, u32, u64 } from "../abi/layout.ts";
import { Interpreter } from "../ebpf/interpreter.ts";
import { compileSource, parseSource } from "./index.ts";

const BASE = 0x10_0000;
const MEMORY = struct("memory", 64, {
  a8: u8(0),
  b8: u8(1),
  a16: u16(2),
  b16: u16(4),
  a32: u32(8),
  b32: u32(12),
  a64: u64(16),
  b64: u64(24),
  out: u64(32),
});
const TYPES = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"] as const;
type Type = (typeof TYPES)[number];
const bitsOf = (type: Type): number => Number(type.slice(1));
const wrap = (type: Type, value: bigint): bigint =>
  type[0] === "i" ? BigInt.asIntN(bitsOf(type), value) : BigInt.asUintN(bitsOf(type), value);

/** An expression as text, and as what it is worth. */
interface Expression {
  readonly text: string;
  readonly value: (memory: bigint[], locals: Map<string, bigint>) => bigint;
}

const OPERATORS: Readonly<Record<string, (type: Type, a: bigint, b: bigint) => bigint>> = {
  "+": (_, a, b) => a + b,
  "-": (_, a, b) => a - b,
  "*": (_, a, b) => a * b,
  "/": (_, a, b) => (b === 0n ? 0n : a / b),
  "%": (_, a, b) => (b === 0n ? a : a % b),
  "&": (_, a, b) => a & b,
  "|": (_, a, b) => a | b,
  "^": (_, a, b) => a ^ b,
  "<<": (t, a, b) => a << (BigInt.asUintN(64, b) & BigInt(bitsOf(t) - 1)),
  ">>": (t, a, b) => a >> (BigInt.asUintN(64, b) & BigInt(bitsOf(t) - 1)),
  ">>>": (t, a, b) =>
    BigInt.asUintN(bitsOf(t), a) >> (BigInt.asUintN(64, b) & BigInt(bitsOf(t) - 1)),
};
const COMPARISONS: Readonly<Record<string, (a: bigint, b: bigint) => boolean>> = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "===": (a, b) => a === b,
  "!==": (a, b) => a !== b,
};
const FIELDS = ["a8", "b8", "a16", "b16", "a32", "b32", "a64", "b64"];
const FIELD_TYPES: readonly Type[] = ["u8", "u8", "u16", "u16", "u32", "u32", "u64", "u64"];

/** A source of choices: numbers that fast-check made and can shrink. */
class Choices {
  readonly #numbers: readonly number[];
  #at = 0;
  constructor(numbers: readonly number[]) {
    this.#numbers = numbers;
  }
  below(n: number): number {
    return (this.#numbers[this.#at++ % this.#numbers.length]! >>> 0) % n;
  }
  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

const SPECIAL = [
  0n,
  1n,
  2n,
  3n,
  7n,
  255n,
  0x7fn,
  0x80n,
  0xffffn,
  0x8000n,
  0x7fff_ffffn,
  0xffff_ffffn,
];

function literal(c: Choices, type: Type): Expression {
  const value = wrap(type, c.below(3) === 0 ? BigInt(c.below(2 ** 31)) << 17n : c.of(SPECIAL));
  const suffix = bitsOf(type) === 64 ? "n" : "";
  return { text: `${type}(${value}${suffix})`, value: () => value };
}

function expressionOf(
  c: Choices,
  type: Type,
  depth: number,
  locals: ReadonlyMap<string, Type>,
): Expression {
  const names = [...locals].filter(([, t]) => t === type).map(([name]) => name);
  switch (depth <= 0 ? c.below(3) : c.below(9)) {
    case 0:
      return literal(c, type);
    case 1: {
      if (names.length === 0) return literal(c, type);
      const name = c.of(names);
      return { text: name, value: (_, l) => l.get(name)! };
    }
    case 2: {
      const i = c.below(FIELDS.length);
      return { text: `${type}(m.${FIELDS[i]})`, value: (m) => wrap(type, m[i]!) };
    }
    case 3: {
      const from = c.of(TYPES);
      const inner = expressionOf(c, from, depth - 1, locals);
      return { text: `${type}(${inner.text})`, value: (m, l) => wrap(type, inner.value(m, l)) };
    }
    case 4: {
      const op = c.of(["-", "~"]);
      const inner = expressionOf(c, type, depth - 1, locals);
      const apply = (v: bigint): bigint => (op === "-" ? -v : ~v);
      return {
        text: `${op}(${inner.text})`,
        value: (m, l) => wrap(type, apply(inner.value(m, l))),
      };
    }
    case 5: {
      const test = conditionOf(c, depth - 1, locals);
      const [a, b] = [
        expressionOf(c, type, depth - 1, locals),
        expressionOf(c, type, depth - 1, locals),
      ];
      return {
        text: `(${test.text} ? ${a.text} : ${b.text})`,
        value: (m, l) => (test.value(m, l) !== 0n ? a : b).value(m, l),
      };
    }
    default: {
      const op = c.of(Object.keys(OPERATORS));
      const [a, b] = [
        expressionOf(c, type, depth - 1, locals),
        expressionOf(c, type, depth - 1, locals),
      ];
      return {
        text: `(${a.text} ${op} ${b.text})`,
        value: (m, l) => wrap(type, OPERATORS[op]!(type, a.value(m, l), b.value(m, l))),
      };
    }
  }
}

function conditionOf(c: Choices, depth: number, locals: ReadonlyMap<string, Type>): Expression {
  if (depth > 0 && c.below(3) === 0) {
    const op = c.of(["&&", "||"]);
    const [a, b] = [conditionOf(c, depth - 1, locals), conditionOf(c, depth - 1, locals)];
    return {
      text: `(${a.text} ${op} ${b.text})`,
      value: (m, l) =>
        op === "&&" ? a.value(m, l) && b.value(m, l) : a.value(m, l) || b.value(m, l),
    };
  }
  const type = c.of(TYPES);
  const op = c.of(Object.keys(COMPARISONS));
  const [a, b] = [
    expressionOf(c, type, depth - 1, locals),
    expressionOf(c, type, depth - 1, locals),
  ];
  const not = c.below(4) === 0;
  return {
    text: `${not ? "!" : ""}(${a.text} ${op} ${b.text})`,
    value: (m, l) => (COMPARISONS[op]!(a.value(m, l), b.value(m, l)) !== not ? 1n : 0n),
  };
}

/** Statements as text, and as what they do to the locals. */
interface Statement {
  readonly text: string;
  readonly run: (memory: bigint[], locals: Map<string, bigint>) => void;
}

function statementOf(c: Choices, depth: number, locals: ReadonlyMap<string, Type>): Statement {
  const kind = depth <= 0 ? 0 : c.below(4);
  if (kind === 1) return ifOf(c, depth, locals);
  if (kind === 2) return loopOf(c, depth, locals);
  const [name, type] = c.of([...locals]);
  const value = expressionOf(c, type, 3, locals);
  return { text: `${name} = ${value.text};`, run: (m, l) => void l.set(name, value.value(m, l)) };
}

function blockOf(c: Choices, depth: number, locals: ReadonlyMap<string, Type>): Statement {
  const list = Array.from({ length: 1 + c.below(3) }, () => statementOf(c, depth - 1, locals));
  return {
    text: `{ ${list.map((s) => s.text).join("\n")} }`,
    run: (m, l) => {
      for (const s of list) s.run(m, l);
    },
  };
}

function ifOf(c: Choices, depth: number, locals: ReadonlyMap<string, Type>): Statement {
  const test = conditionOf(c, 2, locals);
  const [yes, no] = [blockOf(c, depth, locals), blockOf(c, depth, locals)];
  return {
    text: `if (${test.text}) ${yes.text} else ${no.text}`,
    run: (m, l) => (test.value(m, l) !== 0n ? yes : no).run(m, l),
  };
}

function loopOf(c: Choices, depth: number, locals: ReadonlyMap<string, Type>): Statement {
  const rounds = c.below(5);
  const counter = `i${depth}`;
  const inner = blockOf(c, depth, locals);
  const stop = c.below(3) === 0 ? conditionOf(c, 1, locals) : undefined;
  return {
    text: `for (let ${counter} = 0; ${counter} < ${rounds}; ${counter}++) { ${inner.text}
      ${stop ? `if (${stop.text}) break;` : ""} }`,
    run: (m, l) => {
      for (let i = 0; i < rounds; i++) {
        inner.run(m, l);
        if (stop !== undefined && stop.value(m, l) !== 0n) break;
      }
    },
  };
}

const VARIABLES = new Map<string, Type>([
  ["v0", "u8"],
  ["v1", "u16"],
  ["v2", "u32"],
  ["v3", "u64"],
  ["v4", "i8"],
  ["v5", "i16"],
  ["v6", "i32"],
  ["v7", "i64"],
]);

function programOf(c: Choices): Statement {
  const body = blockOf(c, 3, VARIABLES);
  const start = [...VARIABLES].map(([name, type]) => {
    const i = c.below(FIELDS.length);
    return { name, type, i, text: `let ${name}: ${type} = ${type}(m.${FIELDS[i]});` };
  });
  const end = [...VARIABLES].map(([name]) => `m.out = m.out * 31n + u64(${name});`);
  return {
    text: `export function main(context) {
      const m = view(MEMORY, context, 0);
      ${start.map((s) => s.text).join("\n")}
      ${body.text}
      ${end.join("\n")}
      return 0;
    }`,
    run: (m, l) => {
      for (const { name, type, i } of start) l.set(name, wrap(type, m[i]!));
      body.run(m, l);
    },
  };
}

const IMPORTS = `import { view, ${TYPES.join(", ")} } from "../compiler/language.ts";\n`;

function check(choices: readonly number[], contents: readonly number[]): void {
  const program = programOf(new Choices(choices));
  const [compiled] = compileSource(parseSource("main.ts", IMPORTS + program.text), { MEMORY });
  const bytes = new Uint8Array(64);
  bytes.set(contents.map((n) => n & 255));
  const view = new DataView(bytes.buffer);
  view.setBigUint64(32, 0n, true);
  const memory = FIELDS.map((name, i) => {
    const { offset } = MEMORY.fields[name as keyof typeof MEMORY.fields];
    let value = 0n;
    for (let b = bitsOf(FIELD_TYPES[i]!) / 8; b-- > 0; )
      value = (value << 8n) | BigInt(bytes[offset + b]!);
    return value;
  });
  const locals = new Map<string, bigint>();
  program.run(memory, locals);
  let wanted = 0n;
  for (const name of VARIABLES.keys()) wanted = wrap("u64", wanted * 31n + locals.get(name)!);
  const regions = [{ name: "context", base: BASE, bytes }];
  new Interpreter(compiled!.code, { regions, stepLimit: 10_000_000 }).run(BigInt(BASE));
  assert.equal(view.getBigUint64(32, true), wanted, program.text);
}

const runs = process.env.BPFHV_FULL === "1" ? 20_000 : 40;

test("random programs do what an evaluator over BigInt says", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0 }), { minLength: 40, maxLength: 200 }),
      fc.array(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff, 0x55), { minLength: 32, maxLength: 32 }),
      check,
    ),
    // Shrinking takes minutes; the seed is printed.
    { numRuns: runs, endOnFailure: true },
  );
});
