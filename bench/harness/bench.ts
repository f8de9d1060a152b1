/** What a bench is, and what a run of one leaves behind. */

/** A limit on a row's value, or on its ratio to its baseline. */
export interface Aim {
  readonly of: "value" | "ratio";
  readonly most?: number;
  readonly least?: number;
}

export interface RowSpec {
  readonly name: string;
  readonly unit: string;
  /** Row that this one is divided by. */
  readonly baseline?: string;
  readonly aim?: Aim;
  /** A number of events, each of which counts, whatever the controls and the machine did. */
  readonly isCount?: true;
  /** A control of the samples; without one, the fixed work beside every iteration. */
  readonly control?: string;
}

/** What one fresh process measured. */
export interface Sample {
  /** By row. A row that this machine cannot measure is left out. */
  readonly values: Readonly<Record<string, number | readonly number[]>>;
  /** The same thing measured before and after the rest, by control. */
  readonly controls?: Readonly<Record<string, readonly [first: number, last: number]>>;
  /** Facts for the header, such as a tool's version. */
  readonly facts?: Readonly<Record<string, string>>;
}

export interface SampleOptions {
  readonly quick: boolean;
  readonly round: number;
}

export interface Bench {
  readonly name: string;
  /** One line. */
  readonly about: string;
  /** It boots guests. */
  readonly vm?: true;
  /** Its figures do not depend on what else the machine does: counts, memory. */
  readonly steady?: true;
  readonly rounds: number;
  /** Share by which a control may move or spread. */
  readonly limit: number;
  /** Other limits, by control, when the effect is so much larger. */
  readonly limits?: Readonly<Record<string, number>>;
  /** Longest time of one sample, on an idle machine. */
  readonly seconds: number;
  /** Each is measured in a fresh process, once per round. */
  readonly parts: readonly string[];
  readonly rows: readonly RowSpec[];
  /** Returns why it cannot run on this machine. */
  problem?(): Promise<string | undefined> | string | undefined;
  sample(part: string, options: SampleOptions): Promise<Sample> | Sample;
  /** Markdown of a result, by name; "" is the one of `<!-- bench:NAME -->`. */
  readonly tables: Readonly<Record<string, (result: Result) => string>>;
}

/** Whether what should not have changed has not. */
export interface Control {
  /** Of the medians of first and last measurements: how far their ratio is from 1. */
  readonly moved: number;
  /** Middle half of all measurements, divided by their median. */
  readonly spread: number;
  readonly limit: number;
  readonly flat: boolean;
  readonly first: readonly number[];
  readonly last: readonly number[];
}

export interface Against {
  readonly revision: string;
  readonly value: number;
  /** This tree's value to that revision's. */
  readonly ratio: number;
  readonly raw: readonly number[];
}

export interface Row {
  readonly name: string;
  /** Median of `raw`, which has all that the samples measured. */
  readonly value: number;
  readonly unit: string;
  readonly baseline: string | null;
  /** Of the medians. */
  readonly ratio: number | null;
  /** By round. */
  readonly ratios: readonly number[];
  readonly aim: Aim | null;
  readonly met: boolean | null;
  readonly raw: readonly number[];
  readonly control: string;
  /** False if its control was not flat, or the machine was busy: then the row says nothing. */
  readonly counted: boolean;
  readonly why: string | null;
  readonly against?: Against;
}

export interface Header {
  readonly bench: string;
  readonly date: string;
  /** Of the tree; "-dirty" if files of it were changed. */
  readonly revision: string;
  readonly against?: string;
  readonly rounds: number;
  readonly quick: boolean;
  readonly seconds: number;
  readonly machine: {
    readonly model: string;
    readonly cpus: number;
    /** Share of the CPUs' time that the host of this (virtual) machine took during the run. */
    readonly steal: number;
    /** Share that processes other than the bench's used. */
    readonly others: number;
    /** One-minute load average at the start and at the end. */
    readonly load: readonly [number, number];
    readonly kernel: string;
  };
  readonly node: string;
  readonly v8: string;
  /** Null for benches without a guest. */
  readonly qemu: string | null;
  readonly accelerator: string | null;
  readonly facts: Readonly<Record<string, string>>;
}

/** What `bench/results/NAME.json` holds. */
export interface Result {
  readonly header: Header;
  readonly controls: Readonly<Record<string, Control>>;
  readonly rows: readonly Row[];
}
