/**
 * The terminal of `bpfhv top`: what does not fit is scrolled to, and said to be there; `q` quits.
 */

const HOME = "\x1b[H";
const CLEAR = "\x1b[2J";
const CLEAR_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";
const CURSOR = { hide: "\x1b[?25l", show: "\x1b[?25h" } as const;
/** Of a terminal that does not tell its size. */
const COLUMNS = 80;
const ROWS = 24;

/** Lines to move by; pages are moved by as many lines as fit. */
const KEYS: Readonly<Record<string, number | "page" | "back" | "top" | "end">> = {
  "\x1b[A": -1,
  k: -1,
  "\x1b[B": 1,
  j: 1,
  "\x1b[5~": "back",
  b: "back",
  "\x1b[6~": "page",
  " ": "page",
  "\x1b[H": "top",
  g: "top",
  "\x1b[F": "end",
  G: "end",
};

export class TopScreen {
  readonly #quit: () => void;
  readonly #onKey = (key: Buffer) => this.#key(key.toString());
  readonly #onResize = () => this.#draw();
  #lines: (width: number) => string[] = () => [];
  #from = 0;

  constructor(quit: () => void) {
    this.#quit = quit;
    process.stdout.write(`${CURSOR.hide}${CLEAR}`);
    process.stdout.on("resize", this.#onResize);
    if (!process.stdin.isTTY) return;
    process.stdin.setRawMode(true);
    process.stdin.on("data", this.#onKey);
  }

  /** @param lines gives the text for a width */
  show(lines: (width: number) => string[]): void {
    this.#lines = lines;
    this.#draw();
  }

  close(): void {
    process.stdout.off("resize", this.#onResize);
    if (process.stdin.isTTY) {
      process.stdin.off("data", this.#onKey);
      process.stdin.setRawMode(false);
      process.stdin.pause();
    }
    process.stdout.write(CURSOR.show);
  }

  get #height(): number {
    return Math.max(1, (process.stdout.rows || ROWS) - 2);
  }

  #draw(): void {
    const width = process.stdout.columns || COLUMNS;
    const lines = this.#lines(width);
    this.#from = Math.max(0, Math.min(this.#from, lines.length - this.#height));
    const shown = window(lines, this.#from, this.#height, width);
    const text = shown.map((line) => `${line}${CLEAR_LINE}\r\n`).join("");
    process.stdout.write(`${HOME}${text}${CLEAR_BELOW}`);
  }

  #key(key: string): void {
    // In raw mode Ctrl-C and Ctrl-\ are keys.
    if (key === "q" || key === "Q" || key === "\x03" || key === "\x1c") return this.#quit();
    const move = Object.hasOwn(KEYS, key) ? KEYS[key] : 0;
    if (move === "top") this.#from = 0;
    else if (move === "end") this.#from = Number.MAX_SAFE_INTEGER;
    else if (move === "page") this.#from += this.#height;
    else if (move === "back") this.#from -= this.#height;
    else this.#from += move;
    if (move !== 0) this.#draw();
  }
}

/** `height` lines from `from` on, and one below that says what is not shown. */
export function window(
  lines: readonly string[],
  from: number,
  height: number,
  width: number,
): string[] {
  const shown = lines.slice(from, from + height);
  const below = Math.max(0, lines.length - from - height);
  const rest =
    from + below === 0 ? "q quits" : `${from} lines above, ${below} below: arrows scroll, q quits`;
  return [...shown, rest.slice(0, width)];
}
