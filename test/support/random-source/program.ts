/**
 * Random programs: functions, inlined and called, and a main with a
 * struct in the context and one on the stack.
 */
import { struct, u8, u16, u32, u64 } from "../../../src/abi/layout.ts";
import { parseSource, type Source } from "../../../src/compiler/index.ts";
import { NOINLINE } from "../../../src/compiler/out-of-line.ts";
import {
  bitsOf,
  type Callable,
  type Choices,
  FIELD_NAMES,
  FIELDS,
  type Names,
  type Place,
  type State,
  TYPES,
  type Type,
  wrap,
} from "./choices.ts";
import { expressionOf } from "./expressions.ts";
import { blockOf } from "./statements.ts";

const fields = {
  ...{ a8: u8(0), b8: u8(1), a16: u16(2), b16: u16(4), a32: u32(8), b32: u32(12) },
  ...{ a64: u64(16), b64: u64(24), out: u64(32) },
};
/** The layout of `m` in the context and of `s` on the stack. */
export const MEMORY = struct("memory", 64, fields);

const LOCALS: Names = new Map(TYPES.map((type, i) => [`v${i}`, type]));
const IMPORTS = `import { compareExchange, exchange, fetchAdd, fetchAnd, fetchOr, fetchXor, stack, swap16, swap32,
  swap64, view, ${TYPES.join(", ")} } from "../compiler/language.ts";\n`;

export interface RandomProgram {
  readonly text: string;
  readonly source: Source;
  /** Returns the context after a run of the program. */
  readonly run: (context: Uint8Array) => Uint8Array;
}

/** Returns a function of integers that may use earlier ones, randomly inlined or called. */
function functionOf(c: Choices, n: number, before: readonly Callable[]): Callable {
  const params = Array.from({ length: 1 + c.below(5) }, () => c.of(TYPES));
  const returns = c.of(TYPES);
  const names: Names = new Map(params.map((type, i) => [`p${i}`, type]));
  const at: Place = { names, functions: before.slice(-1), structs: [] };
  const test = expressionOf(c, "u32", 1, at);
  const [early, value] = [expressionOf(c, returns, 2, at), expressionOf(c, returns, 3, at)];
  const list = params.map((type, i) => `p${i}: ${type}`).join(", ");
  return {
    name: `f${n}`,
    ...{ params, returns },
    text: `function f${n}(${list}): ${returns} {
      ${c.below(3) > 0 ? `"${NOINLINE}";` : ""}
      if (${test.text} > 100) return ${early.text};
      return ${value.text};
    }`,
    apply: (args) => {
      const state: State = new Map(args.map((arg, i) => [`p${i}`, arg]));
      return (test.value(state) > 100n ? early : value).value(state);
    },
  };
}

export function programOf(c: Choices): RandomProgram {
  const functions: Callable[] = [];
  for (let n = c.below(4); n > 0; n--) functions.push(functionOf(c, functions.length, functions));
  const at: Place = { names: LOCALS, functions, structs: ["m", "s"] };
  const body = blockOf(c, 3, at);
  const start = [...LOCALS].map(([name, type]) => ({ name, type, from: c.of(FIELD_NAMES) }));
  const text = `${IMPORTS}${functions.map((f) => f.text).join("\n")}
    export function main(context) {
      const m = view(MEMORY, context, 0);
      const s = stack(MEMORY);
      ${FIELD_NAMES.map((name, i) => `s.${name} = m.${mirrored(i)};`).join("\n")}
      ${start.map(({ name, type, from }) => `let ${name}: ${type} = ${type}(m.${from});`).join("\n")}
      ${body.text}
      ${[...LOCALS.keys(), ...FIELD_NAMES.map((name) => `s.${name}`)]
        .map((name) => `m.out = m.out * 31n + u64(${name});`)
        .join("\n")}
      return 0;
    }`;
  const run = (context: Uint8Array): Uint8Array => {
    const state = stateOf(context);
    for (const [i, name] of FIELD_NAMES.entries())
      state.set(`s.${name}`, state.get(`m.${mirrored(i)}`)!);
    for (const { name, type, from } of start) state.set(name, wrap(type, state.get(`m.${from}`)!));
    body.run(state);
    return contextOf(context.length, state);
  };
  return { text, source: parseSource("main.ts", text), run };
}

/** Fields of one type form pairs: returns the other one of the pair. */
const mirrored = (i: number): string => FIELD_NAMES[i ^ 1]!;

const placeOf = (name: string) => fields[name as keyof typeof fields];

function stateOf(context: Uint8Array): State {
  const state: State = new Map();
  for (const name of FIELD_NAMES) {
    const { offset, width } = placeOf(name);
    let value = 0n;
    for (let b = width; b-- > 0; ) value = (value << 8n) | BigInt(context[offset + b]!);
    state.set(`m.${name}`, value);
  }
  return state;
}

function contextOf(length: number, state: State): Uint8Array {
  const bytes = new Uint8Array(length);
  const put = (name: string, value: bigint): void => {
    const { offset, width } = placeOf(name);
    for (let b = 0; b < width; b++) bytes[offset + b] = Number((value >> BigInt(8 * b)) & 0xffn);
  };
  let out = 0n;
  for (const name of [...LOCALS.keys(), ...FIELD_NAMES.map((field) => `s.${field}`)]) {
    out = wrap("u64", out * 31n + state.get(name)!);
  }
  for (const [name, type] of Object.entries(FIELDS) as [string, Type][]) {
    put(name, BigInt.asUintN(bitsOf(type), state.get(`m.${name}`)!));
  }
  put("out", out);
  return bytes;
}
