/** The code of loops that are made of vectors. */
import { REGISTERS } from "../instruction.ts";
import type { AccessSize } from "../opcode.ts";
import type { Registers } from "./arithmetic.ts";
import { emitSum, type StayTest } from "./stay.ts";
import { type Operand, type Step, SUMS, VECTOR_ROUNDS, type VectorLoop } from "./vector.ts";
import type { Code } from "./wasm.ts";

/** Bytes of a vector. */
const VECTOR = 16;
const LOW_HALF = 0xffff_ffffn;

/** v128 locals that the loop takes. */
export function localsOf({ size, loads, constants, sums }: VectorLoop): number {
  return REGISTERS + loads.length + constants.length + 1 + sums.length * partsOf(size);
}

/** Vectors that a load makes. */
const partsOf = (size: AccessSize): number => 8 / size;

export class VectorEmitter {
  readonly #code: Code;
  readonly #registers: Registers;
  readonly #loop: VectorLoop;
  readonly #first: number;

  /** @param first of the v128 locals that it takes */
  constructor(code: Code, registers: Registers, loop: VectorLoop, first: number) {
    this.#code = code;
    this.#registers = registers;
    this.#loop = loop;
    this.#first = first;
  }

  /**
   * Many rounds at once, for as long as the loop surely goes on behind them.
   * @param stay whether all accesses of so many rounds are in bounds, and the loop is not left
   * @param fuel i64 local: instructions that are left of the step limit
   * @param length instructions of a round
   */
  emit(stay: StayTest, fuel: number, length: number): void {
    const code = this.#code;
    const cost = BigInt(VECTOR_ROUNDS * length);
    const goesOn = () => {
      stay.test();
      code.get(fuel).i64(cost).op("i64_ge_s", "i32_and");
    };
    stay.prepare();
    goesOn();
    code.if();
    this.#start();
    code.loop();
    code.get(fuel).i64(cost).op("i64_sub").set(fuel);
    this.#rounds();
    goesOn();
    code.brIf(0).op("end");
    this.#finish();
    code.op("end");
  }

  #start(): void {
    const { constants, sums, size } = this.#loop;
    constants.forEach((sum, n) => {
      emitSum(this.#code, this.#registers, sum);
      this.#code.vector("i64x2_splat").set(this.#constant(n));
    });
    this.#code
      .i64((1n << BigInt(8 * size)) - 1n)
      .vector("i64x2_splat")
      .set(this.#element);
    sums.forEach(({ op }, s) => {
      for (let part = 0; part < partsOf(size); part++) {
        this.#code.i64(SUMS[op].nothing).vector("i64x2_splat").set(this.#sum(s, part));
      }
    });
  }

  /** Rounds in a row, and what the registers that go on by the same hold behind them. */
  #rounds(): void {
    const { loads, size, growth } = this.#loop;
    const code = this.#code;
    for (let at = 0; at < VECTOR_ROUNDS * size; at += VECTOR) {
      loads.forEach(({ address }, n) => {
        emitSum(code, this.#registers, address);
        code.op("i32_wrap_i64").vectorLoad(at).set(this.#loaded(n));
      });
      for (let part = 0; part < partsOf(size); part++) this.#part(part);
    }
    for (const [, by] of growth) emitSum(code, this.#registers, by);
    for (const [register] of growth.toReversed()) {
      code.i64(BigInt(VECTOR_ROUNDS)).op("i64_mul").get(this.#registers[register]!);
      code.op("i64_add").set(this.#registers[register]!);
    }
  }

  /** Makes one number of all parts, and adds it to the register. */
  #finish(): void {
    const code = this.#code;
    this.#loop.sums.forEach(({ register, op, bits }, s) => {
      const { vector, scalar } = SUMS[op];
      code.get(this.#sum(s, 0));
      for (let part = 1; part < partsOf(this.#loop.size); part++) {
        code.get(this.#sum(s, part)).vector(vector);
      }
      code.set(this.#sum(s, 0));
      for (const lane of [0, 1]) code.get(this.#sum(s, 0)).lane(lane);
      code.op(scalar).get(this.#registers[register]!).op(scalar);
      if (bits === 32) code.i64(LOW_HALF).op("i64_and");
      code.set(this.#registers[register]!);
    });
  }

  /** Two rounds: those of the vector's halves whose numbers are `part` numbers behind where the halves begin. */
  #part(part: number): void {
    for (const step of this.#loop.steps) this.#step(step, part);
  }

  #step(step: Step, part: number): void {
    const code = this.#code;
    const { size, loads, sums } = this.#loop;
    switch (step.kind) {
      case "load": {
        code.get(this.#loaded(step.load));
        if (part > 0) code.i32(8 * size * part).vector("i64x2_shr_u");
        if (part + 1 < partsOf(size)) code.get(this.#element).vector("v128_and");
        code.set(this.#register(loads[step.load]!.register));
        return;
      }
      case "shift":
        code.get(this.#register(step.dst)).i32(step.by).vector(step.op);
        code.set(this.#register(step.dst));
        return;
      case "alu":
        code.get(this.#register(step.dst)).get(this.#operand(step.src)).vector(step.op);
        code.set(this.#register(step.dst));
        return;
      case "move":
        code.get(this.#operand(step.src)).set(this.#register(step.dst));
        return;
      case "mask":
        code.get(this.#register(step.dst)).i64(LOW_HALF).vector("i64x2_splat");
        code.vector("v128_and").set(this.#register(step.dst));
        return;
      case "sum": {
        const to = this.#sum(step.sum, part);
        code.get(to).get(this.#operand(step.src)).vector(SUMS[sums[step.sum]!.op].vector);
        code.set(to);
      }
    }
  }

  #operand(operand: Operand): number {
    return "register" in operand
      ? this.#register(operand.register)
      : this.#constant(operand.constant);
  }

  #register(n: number): number {
    return this.#first + n;
  }

  #loaded(n: number): number {
    return this.#first + REGISTERS + n;
  }

  #constant(n: number): number {
    return this.#loaded(this.#loop.loads.length + n);
  }

  /** Ones where the vector's lowest number is. */
  get #element(): number {
    return this.#constant(this.#loop.constants.length);
  }

  #sum(s: number, part: number): number {
    return this.#element + 1 + s * partsOf(this.#loop.size) + part;
  }
}
