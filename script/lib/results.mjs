// A reporter of node --test for script/test: one line per result, in words separated by tabs. "time
// MS FILE" is the wall time of a whole file, including its start.
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

const dist = fileURLToPath(new URL("../../dist", import.meta.url));
// With and without the source map: dist/test/vm/boot.test.js, test/vm/boot.test.ts.
const root = fileURLToPath(new URL("../..", import.meta.url));
const short = (file) =>
  relative(file.startsWith(dist) ? dist : root, file).replace(/\.test\.[jt]s$/, "");
const line = (...words) => `${words.map((word) => `${word}`.replace(/\s+/g, " ")).join("\t")}\n`;

export default async function* results(source) {
  for await (const { type, data } of source) {
    const isFile = data?.name === data?.file;
    if (type === "test:complete" && isFile) {
      yield line("time", Math.round(data.details.duration_ms), short(data.file));
    } else if (type === "test:fail") {
      const { failureType, cause } = data.details.error;
      // The subtests name themselves.
      if (failureType === "subtestsFailed") continue;
      yield line("fail", short(data.file), isFile ? cause : data.name);
    } else if (type === "test:pass" && data.skip) {
      yield line("skip", data.name, data.skip === true ? "" : data.skip);
    } else if (type === "test:diagnostic" && data.nesting === 0) {
      const [, name, count] = /^(pass|fail|cancelled) (\d+)$/.exec(data.message) ?? [];
      if (name !== undefined) yield line(name, count);
    }
  }
}
