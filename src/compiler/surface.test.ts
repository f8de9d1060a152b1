// First attempts of a newcomer compile correctly, or are refused with a place and a hint.
import assert from "node:assert/strict";
import test from "node:test";
import { GIVEN } from "../../test/support/compiler.ts";
import { PRIVATE_OFFSET } from "../abi/index.ts";
import { LinearMemory } from "../ebpf/jit/linear-memory.ts";
import { createRunner } from "../ebpf/runners.ts";
import { CompileError, compileSource, parseSource } from "./index.ts";

const PRELUDE = `
import { type Context, i32, u16, u32, u64, type i64, view } from "../compiler/language.ts";
import { CONTEXT, PRIVATE_OFFSET } from "../abi/index.ts";
declare const RING: any;
`;
const PRELUDE_LINES = PRELUDE.split("\n").length - 1;
const STEP = "export function main(context: Context): number {";

/** Returns a program whose body begins with a ring in `ring`. */
const program = (body: string): string =>
  `${PRELUDE}${STEP}\nconst ring = view(RING, context, PRIVATE_OFFSET);\n${body}\n}\n`;

const compile = (text: string) => compileSource(parseSource("mine.ts", text), GIVEN);

function refusalOf(text: string): CompileError {
  try {
    compile(text);
  } catch (error) {
    assert.ok(error instanceof CompileError, `${text}\n${error}`);
    return error;
  }
  assert.fail(`compiled: ${text}`);
}

/** Returns R0 of the program's main and the ring's first words, for a ring with `packed`. */
function run(body: string, packed: number): { r0: number; head: number; total: bigint } {
  const [{ code }] = compile(program(body));
  const memory = new LinearMemory(4096);
  const bytes = memory.allocate(4096);
  const ring = new DataView(bytes.buffer, bytes.byteOffset + PRIVATE_OFFSET);
  ring.setUint32(4, packed, true);
  const base = 0x10_0000;
  const regions = [{ name: "context", base, bytes }];
  const machine = createRunner("interpreter", code, { memory, regions });
  const r0 = Number(BigInt.asIntN(32, BigInt(machine.call(base))));
  return { r0, head: ring.getUint16(0, true), total: ring.getBigUint64(8, true) };
}

/** Texts that are refused: the line in the text, and the message. */
const REFUSED: readonly (readonly [name: string, text: string, at: number, message: RegExp])[] = [
  ["?? in a value", program("return ring.packed ?? 1;"), 3, /no \?\?/],
  ["?? in a condition", program("if (ring.packed ?? 1) return 1;\nreturn 0;"), 3, /no \?\?/],
  ["?? behind a comparison", program("return (ring.packed ?? 3) > 2 ? 1 : 0;"), 3, /no \?\?/],
  ["??=", program("let a = ring.packed;\na ??= 1;\nreturn a;"), 4, /operator \?\?/],
  ["an async function", `${PRELUDE}export async ${STEP.slice(7)} return 0; }`, 1, /async/],
  [
    "a generator",
    `${PRELUDE}export function* main(context: Context) { return 0; }`,
    1,
    /generator/,
  ],
  [
    "a call of an async function",
    `${PRELUDE}async function f() { return 1; }\n${STEP} return f(); }`,
    1,
    /async/,
  ],
  ["two let with one name", program("let x = 1;\nlet x = 2;\nreturn x;"), 3, /`?x`? has already/],
  ["a let with a parameter's name", program("const context = 2;\nreturn 1;"), 1, /context/],
  ["two functions with one name", `${PRELUDE}${STEP} return 0; }\n${STEP} return 1; }`, 2, /main/],
  ["u32 - 1 < 0", program("return ring.packed - 1 < 0 ? 1 : 0;"), 3, /u32 is unsigned.*never true/],
  ["0 <= u16", program("if (0 <= ring.head) return 1;\nreturn 0;"), 3, /unsigned.*always true/],
  ["u64 >= 0n", program("if (ring.total >= 0n) return 1;\nreturn 0;"), 3, /unsigned.*always true/],
  ["BigInt()", program("return u32(BigInt(ring.packed));"), 3, /write u64\(\.\.\.\)/],
  ["Number()", program("return Number(ring.total);"), 3, /write u32\(\.\.\.\)/],
  ["an empty file", "", 1 - PRELUDE_LINES, /no programs here: write export function/],
  ["a file of constants", `${PRELUDE}export const a = 1;`, 1 - PRELUDE_LINES, /no programs here/],
  ["a forgotten export", `${PRELUDE}function txp() { return 0; }`, 1, /no function is exported/],
  ["a default export", `${PRELUDE}export default function txp() { return 0; }`, 1, /needs a name/],
  [
    "a default export beside a program",
    `${program("return 0;")}export default 3;`,
    5,
    /needs a name/,
  ],
  [
    "an exported arrow function",
    `${PRELUDE}export const txp = (context: Context): number => 0;`,
    1,
    /txp is a function in a constant.*write export function txp\(/,
  ],
  [
    "an exported function expression beside a program",
    `${program("return 0;")}export const rxp = function () { return 0; };`,
    5,
    /rxp is a function in a constant/,
  ],
];

for (const [name, text, at, message] of REFUSED) {
  test(`compiler refuses ${name}`, () => {
    const error = refusalOf(text);
    assert.match(error.message, message);
    assert.equal(error.place.line - PRELUDE_LINES, at, error.message);
    assert.notEqual(error.hint, "");
  });
}

test("compiler accepts every operator of JavaScript or refuses it with a place", () => {
  const operators = ["+", "-", "*", "/", "%", "**", "&", "|", "^", "<<", ">>", ">>>", "??"];
  const relations = [
    "<",
    "<=",
    ">",
    ">=",
    "==",
    "===",
    "!=",
    "!==",
    "&&",
    "||",
    "in",
    "instanceof",
  ];
  const unary = ["+", "-", "~", "!", "typeof ", "void ", "delete ", "++", "--"];
  const texts = [
    ...[...operators, ...relations].map((o) => `return u32(a ${o} b);`),
    ...[...operators, "&&", "||"].map((o) => `a ${o}= b;\nreturn a;`),
    ...unary.map((o) => `return u32(${o}a);`),
    ...["(a, b)", "a?.b", "[a][0]", "new a()", "`a`", "a`b`", "this", "() => a", "/x/", "null"],
  ];
  let compiled = 0;
  for (const text of texts) {
    const body = `let a = ring.packed;\nconst b = ring.packed;\n${text}`;
    try {
      compiled += compile(program(body)).length;
    } catch (error) {
      assert.ok(error instanceof CompileError, `${text}: ${error}`);
      assert.match(error.message, /^mine\.ts:\d+:\d+: .+: .+$/, text);
    }
  }
  assert.ok(compiled > 25 && compiled < texts.length, `${compiled} of ${texts.length}`);
});

test("literals of ?: take the type of their assignment target", () => {
  const choose = "ring.packed > 5 ? 7 : 9";
  for (const [packed, wanted] of [
    [6, 7],
    [5, 9],
  ] as const) {
    assert.equal(run(`ring.head = ${choose};\nreturn 0;`, packed).head, wanted);
    assert.equal(run(`let x: u16 = ${choose};\nring.head = x;\nreturn 0;`, packed).head, wanted);
    assert.equal(
      run(
        `let x: i64 = ${choose.replace(/[79]/g, "$&n")};
      return x > -1n ? i32(x) : 0;`,
        packed,
      ).r0,
      wanted,
    );
    assert.equal(
      run(`let x = ring.head;\nx = ${choose};\nring.head = x;\nreturn 0;`, packed).head,
      wanted,
    );
    const big = `ring.total = ring.packed > 5 ? 7n : 9n;\nreturn 0;`;
    assert.equal(run(big, packed).total, BigInt(wanted));
    const nested = `ring.head = ring.packed > 5 ? 7 : ring.packed > 100 ? 1 : 9;\nreturn 0;`;
    assert.equal(run(nested, packed).head, wanted);
    // On the right of an operator it takes the type of the left, and in a call the parameter's.
    assert.equal(run(`let y = i32(1);\nreturn y + (${choose}) - 1;`, packed).r0, wanted);
  }
  const text = `${PRELUDE}function put(x: u16): u16 { return x; }
    ${STEP} const ring = view(RING, context, PRIVATE_OFFSET);
    ring.head = put(ring.packed > 5 ? 7 : 9); return 0; }`;
  assert.equal(compile(text).length, 1);
  // A literal that does not fit is still refused.
  assert.match(
    refusalOf(program("ring.head = ring.packed > 5 ? 70000 : 9;\nreturn 0;")).message,
    /fit/,
  );
});

test("code has the line of its use when it uses a named constant", () => {
  const text = `${PRELUDE}const SMALL = 5 - 3;\n${STEP}
  switch (view(CONTEXT, context, 0).num_bufs) {
    case SMALL:\n      return 1;\n  }\n  return 0;\n}`;
  const [{ lines }] = compile(text);
  const named = [...(lines ?? new Map()).values()].map((place) => place.line - PRELUDE_LINES);
  assert.ok(named.length > 2);
  assert.ok(!named.includes(1), `${named}`);
  assert.ok(named.includes(4), `${named}`);
});
