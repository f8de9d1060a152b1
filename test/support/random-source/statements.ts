/** Random statements: their text, and their effect on variables and fields. */
import {
  bitsOf,
  type Choices,
  FIELD_NAMES,
  FIELDS,
  type Place,
  type State,
  type Type,
  wrap,
} from "./choices.ts";
import { conditionOf, type Expression, expressionOf, OPERATORS } from "./expressions.ts";

export interface Statement {
  readonly text: string;
  readonly run: (state: State) => void;
}

const LOOPS = ["for", "while", "do"] as const;

export function statementOf(c: Choices, depth: number, at: Place): Statement {
  const simple = [assignment, assignment, compound, store, atomic, increment];
  if (depth <= 0) return c.of(simple)(c, at);
  switch (c.below(8)) {
    case 0:
    case 1:
      return ifOf(c, depth, at);
    case 2:
    case 3:
      return loopOf(c, depth, at);
    case 4:
      return switchOf(c, depth, at);
    default:
      return c.of(simple)(c, at);
  }
}

export function blockOf(c: Choices, depth: number, at: Place): Statement {
  const list = Array.from({ length: 1 + c.below(3) }, () => statementOf(c, depth - 1, at));
  return {
    text: `{ ${list.map((s) => s.text).join("\n")} }`,
    run: (state) => {
      for (const statement of list) statement.run(state);
    },
  };
}

function assignment(c: Choices, at: Place): Statement {
  const [name, type] = c.of([...at.names]);
  const { text, value } = expressionOf(c, type, 3, at);
  return { text: `${name} = ${text};`, run: (s) => void s.set(name, value(s)) };
}

/** Returns `v += x` on a variable or field. */
function compound(c: Choices, at: Place): Statement {
  const [name, type] = c.below(2) === 0 ? c.of([...at.names]) : fieldOf(c, at);
  const op = c.of(Object.keys(OPERATORS));
  const { text, value } = expressionOf(c, type, 2, at);
  return {
    text: `${name} ${op}= ${text};`,
    run: (s) => void s.set(name, wrap(type, OPERATORS[op]!(type, s.get(name)!, value(s)))),
  };
}

function increment(c: Choices, at: Place): Statement {
  const [name, type] = c.of([...at.names]);
  const up = c.below(2) === 0;
  const text = c.below(2) === 0 ? `${name}${up ? "++" : "--"};` : `${up ? "++" : "--"}${name};`;
  return { text, run: (s) => void s.set(name, wrap(type, s.get(name)! + (up ? 1n : -1n))) };
}

function fieldOf(c: Choices, { structs }: Place, wide = false): [string, Type] {
  const names = wide ? FIELD_NAMES.filter((name) => bitsOf(FIELDS[name]!) >= 32) : FIELD_NAMES;
  const name = c.of(names);
  return [`${c.of(structs)}.${name}`, FIELDS[name]!];
}

function store(c: Choices, at: Place): Statement {
  const [name, type] = fieldOf(c, at);
  const { text, value } = expressionOf(c, type, 2, at);
  return { text: `${name} = ${text};`, run: (s) => void s.set(name, value(s)) };
}

const ATOMICS: Readonly<Record<string, (old: bigint, value: bigint) => bigint>> = {
  fetchAdd: (old, value) => old + value,
  fetchOr: (old, value) => old | value,
  fetchAnd: (old, value) => old & value,
  fetchXor: (old, value) => old ^ value,
  exchange: (_, value) => value,
};

/** Stores the old value in a variable of the field's type. */
function atomic(c: Choices, at: Place): Statement {
  const [name, type] = fieldOf(c, at, true);
  const into = [...at.names].find(([, t]) => t === type)![0];
  const value = expressionOf(c, type, 2, at);
  if (c.below(3) === 0) return compareExchange(c, at, name, type, into, value);
  const op = c.of(Object.keys(ATOMICS));
  return {
    text: `${into} = ${op}(${name}, ${value.text});`,
    run: (s) => {
      const [old, operand] = [s.get(name)!, value.value(s)];
      s.set(name, wrap(type, ATOMICS[op]!(old, operand)));
      s.set(into, old);
    },
  };
}

function compareExchange(
  c: Choices,
  at: Place,
  name: string,
  type: Type,
  into: string,
  value: Expression,
): Statement {
  // Often the current value, so that both outcomes are common.
  const expected =
    c.below(2) === 0
      ? { text: name, value: (s: State) => s.get(name)! }
      : expressionOf(c, type, 1, at);
  return {
    text: `${into} = compareExchange(${name}, ${expected.text}, ${value.text});`,
    run: (s) => {
      const [wanted, operand, old] = [expected.value(s), value.value(s), s.get(name)!];
      if (old === wanted) s.set(name, operand);
      s.set(into, old);
    },
  };
}

function ifOf(c: Choices, depth: number, at: Place): Statement {
  const test = conditionOf(c, 2, at);
  const [yes, no] = [blockOf(c, depth, at), blockOf(c, depth, at)];
  return {
    text: `if (${test.text}) ${yes.text} else ${no.text}`,
    run: (s) => (test.value(s) !== 0n ? yes : no).run(s),
  };
}

/** Returns a loop of up to four iterations, with a conditional break or continue. */
function loopOf(c: Choices, depth: number, at: Place): Statement {
  const kind = c.of(LOOPS);
  const rounds = c.below(5);
  const i = `i${depth}`;
  const inner = blockOf(c, depth, at);
  const leave = c.below(3);
  const stop = leave < 2 ? conditionOf(c, 1, at) : undefined;
  const late = blockOf(c, 0, at);
  // A continue is safe only in a `for`, which still counts the iteration.
  const cut = leave === 0 || kind !== "for" ? "break" : "continue";
  const body = `${inner.text} ${stop ? `if (${stop.text}) ${cut};` : ""} ${late.text}`;
  // `<` with a literal zero is refused for unsigned values; a
  // loop without iterations is wanted here.
  const end = rounds === 0 ? "u32(0)" : `${rounds}`;
  const texts = {
    for: `for (let ${i} = 0; ${i} < ${end}; ${i}++) { ${body} }`,
    while: `{ let ${i} = 0; while (${i} < ${end}) { ${i}++; ${body} } }`,
    do: `{ let ${i} = 0; do { ${i}++; ${body} } while (${i} < ${end}); }`,
  };
  return {
    text: texts[kind],
    run: (s) => {
      const most = kind === "do" ? Math.max(1, rounds) : rounds;
      for (let n = 0; n < most; n++) {
        inner.run(s);
        if (stop !== undefined && stop.value(s) !== 0n) {
          if (cut === "break") break;
          continue;
        }
        late.run(s);
      }
    },
  };
}

/** Cases without a break fall through. The default is at any position. */
function switchOf(c: Choices, depth: number, at: Place): Statement {
  const type = c.of(["u8", "u16", "u32", "u64", "i32"] as const);
  const on = expressionOf(c, type, 2, at);
  const mask = bitsOf(type) === 64 ? "3n" : type[0] === "i" ? "i32(3)" : "3";
  const last = 1 + c.below(4);
  const otherwise = c.below(last + 2);
  const cases = Array.from({ length: last + 1 }, (_, n) => ({
    value: BigInt(n),
    isDefault: n === otherwise,
    body: blockOf(c, depth, at),
    breaks: c.below(3) > 0,
  }));
  const suffix = bitsOf(type) === 64 ? "n" : "";
  const texts = cases.map(({ value, isDefault, body, breaks }) => {
    const label = isDefault ? "default:" : `case ${value}${suffix}:`;
    return `${label} ${body.text} ${breaks ? "break;" : ""}`;
  });
  return {
    text: `switch (${on.text} & ${mask}) { ${texts.join("\n")} }`,
    run: (s) => {
      const value = on.value(s) & 3n;
      let n = cases.findIndex((each) => !each.isDefault && each.value === value);
      if (n < 0) n = cases.findIndex((each) => each.isDefault);
      for (; n >= 0 && n < cases.length; n++) {
        cases[n]!.body.run(s);
        if (cases[n]!.breaks) break;
      }
    },
  };
}
