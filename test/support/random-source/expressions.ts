/** Random expressions: their text, and their value by the rules of docs/compiler.md, in BigInt. */
import {
  bitsOf,
  type Choices,
  FIELD_NAMES,
  type Place,
  type State,
  TYPES,
  type Type,
  wrap,
} from "./choices.ts";

export interface Expression {
  readonly text: string;
  readonly value: (state: State) => bigint;
}

type Operator = (type: Type, a: bigint, b: bigint) => bigint;
const count = (t: Type, b: bigint): bigint => BigInt.asUintN(64, b) & BigInt(bitsOf(t) - 1);
export const OPERATORS: Readonly<Record<string, Operator>> = {
  "+": (_, a, b) => a + b,
  "-": (_, a, b) => a - b,
  "*": (_, a, b) => a * b,
  "/": (_, a, b) => (b === 0n ? 0n : a / b),
  "%": (_, a, b) => (b === 0n ? a : a % b),
  "&": (_, a, b) => a & b,
  "|": (_, a, b) => a | b,
  "^": (_, a, b) => a ^ b,
  "<<": (t, a, b) => a << count(t, b),
  ">>": (t, a, b) => a >> count(t, b),
  ">>>": (t, a, b) => BigInt.asUintN(bitsOf(t), a) >> count(t, b),
};
const COMPARISONS: Readonly<Record<string, (a: bigint, b: bigint) => boolean>> = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "===": (a, b) => a === b,
  "!==": (a, b) => a !== b,
};
const SPECIAL = [
  ...[0n, 1n, 2n, 3n, 7n, 255n, 0x7fn, 0x80n, 0xffffn, 0x8000n, 0x7fff_ffffn, 0xffff_ffffn],
];

export function literal(c: Choices, type: Type): Expression {
  const value = wrap(type, c.below(3) === 0 ? BigInt(c.below(2 ** 31)) << 17n : c.of(SPECIAL));
  const suffix = bitsOf(type) === 64 ? "n" : "";
  return { text: `${type}(${value}${suffix})`, value: () => value };
}

export function expressionOf(c: Choices, type: Type, depth: number, at: Place): Expression {
  const inner = (t: Type): Expression => expressionOf(c, t, depth - 1, at);
  switch (depth <= 0 ? c.below(3) : c.below(11)) {
    case 0:
      return literal(c, type);
    case 1:
      return variable(c, type, at);
    case 2:
      return field(c, type, at);
    case 3: {
      const value = inner(c.of(TYPES));
      return { text: `${type}(${value.text})`, value: (s) => wrap(type, value.value(s)) };
    }
    case 4:
      return unary(c, type, inner(type));
    case 5: {
      const test = conditionOf(c, depth - 1, at);
      const [a, b] = [inner(type), inner(type)];
      return {
        text: `(${test.text} ? ${a.text} : ${b.text})`,
        value: (s) => (test.value(s) !== 0n ? a : b).value(s),
      };
    }
    case 6:
      return swapped(type, inner);
    case 7:
      return called(c, type, at, inner);
    default: {
      const op = c.of(Object.keys(OPERATORS));
      const [a, b] = [inner(type), inner(type)];
      return {
        text: `(${a.text} ${op} ${b.text})`,
        value: (s) => wrap(type, OPERATORS[op]!(type, a.value(s), b.value(s))),
      };
    }
  }
}

function variable(c: Choices, type: Type, { names }: Place): Expression {
  const fitting = [...names].filter(([, t]) => t === type).map(([name]) => name);
  if (fitting.length === 0) return literal(c, type);
  const name = c.of(fitting);
  return { text: name, value: (s) => s.get(name)! };
}

function field(c: Choices, type: Type, { structs }: Place): Expression {
  if (structs.length === 0) return literal(c, type);
  const name = `${c.of(structs)}.${c.of(FIELD_NAMES)}`;
  return { text: `${type}(${name})`, value: (s) => wrap(type, s.get(name)!) };
}

function unary(c: Choices, type: Type, { text, value }: Expression): Expression {
  return c.below(2) === 0
    ? { text: `-(${text})`, value: (s) => wrap(type, -value(s)) }
    : { text: `~(${text})`, value: (s) => wrap(type, ~value(s)) };
}

/** Returns the bytes of `value` in reverse order. */
export function reversed(value: bigint, bits: number): bigint {
  let result = 0n;
  for (let at = 0n; at < bits; at += 8n) result = (result << 8n) | ((value >> at) & 0xffn);
  return result;
}

function swapped(type: Type, inner: (t: Type) => Expression): Expression {
  const bits = Math.max(16, bitsOf(type));
  const { text, value } = inner(`u${bits}` as Type);
  return {
    text: `${type}(swap${bits}(${text}))`,
    value: (s) => wrap(type, reversed(value(s), bits)),
  };
}

function called(c: Choices, type: Type, at: Place, inner: (t: Type) => Expression): Expression {
  if (at.functions.length === 0) return literal(c, type);
  const f = c.of(at.functions);
  const args = f.params.map(inner);
  return {
    text: `${type}(${f.name}(${args.map((a) => a.text).join(", ")}))`,
    value: (s) => wrap(type, f.apply(args.map((a) => a.value(s)))),
  };
}

export function conditionOf(c: Choices, depth: number, at: Place): Expression {
  if (depth > 0 && c.below(3) === 0) {
    const op = c.of(["&&", "||"]);
    const [a, b] = [conditionOf(c, depth - 1, at), conditionOf(c, depth - 1, at)];
    return {
      text: `(${a.text} ${op} ${b.text})`,
      value: (s) => (op === "&&" ? a.value(s) && b.value(s) : a.value(s) || b.value(s)),
    };
  }
  const type = c.of(TYPES);
  if (c.below(4) === 0) return zeroTest(c, type, depth, at);
  const op = c.of(Object.keys(COMPARISONS));
  const [a, b] = [expressionOf(c, type, depth - 1, at), expressionOf(c, type, depth - 1, at)];
  const not = c.below(4) === 0;
  return {
    text: `${not ? "!" : ""}(${a.text} ${op} ${b.text})`,
    value: (s) => (COMPARISONS[op]!(a.value(s), b.value(s)) !== not ? 1n : 0n),
  };
}

/** Tests a computed value for 0, or for below 1. Often uses one operand twice, so that it holds. */
function zeroTest(c: Choices, type: Type, depth: number, at: Place): Expression {
  const op = c.of(["-", "^", "&"]);
  const a = expressionOf(c, type, depth - 1, at);
  const b = c.below(3) === 0 ? a : expressionOf(c, type, depth - 1, at);
  const [comparison, n] = c.of([["===", 0n] as const, ["!==", 0n], ["<", 1n], [">=", 1n]]);
  const suffix = bitsOf(type) === 64 ? "n" : "";
  return {
    text: `((${a.text} ${op} ${b.text}) ${comparison} ${type}(${n}${suffix}))`,
    value: (s) => {
      const computed = wrap(type, OPERATORS[op]!(type, a.value(s), b.value(s)));
      return COMPARISONS[comparison]!(computed, n) ? 1n : 0n;
    },
  };
}
