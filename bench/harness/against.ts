/** Builds another revision in a temporary folder, measured by the benches of this tree. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./machine.ts";
import type { Other } from "./measure.ts";

/** Returns its whole hash; undefined if there is no such commit. */
export function resolveRevision(name: string): string | undefined {
  const words = ["rev-parse", "--verify", "--quiet", "--end-of-options", `${name}^{commit}`];
  const { status, stdout } = spawnSync("git", ["-C", ROOT, ...words], { encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
}

/**
 * Extracts and builds `hash` in a folder of its own, which the caller removes. The benches come
 * from this tree: what is compared is the product, not the way it is measured.
 */
export function buildRevision(hash: string, folder: string, say: (text: string) => void): Other {
  const revision = hash.slice(0, 12);
  const root = join(folder, revision);
  say(`building ${revision}`);
  mkdirSync(root);
  const archive = join(folder, "revision.tar");
  execFileSync("git", ["-C", ROOT, "archive", "-o", archive, hash]);
  execFileSync("tar", ["-xf", archive, "-C", root]);
  rmSync(archive);
  rmSync(join(root, "bench"), { recursive: true, force: true });
  cpSync(join(ROOT, "bench"), join(root, "bench"), { recursive: true });
  installModules(root, say);
  // With errors in a bench that the revision lacks something for: that one then fails when it runs.
  const { stdout } = spawnSync(
    join(root, "node_modules/.bin/tsc"),
    ["-p", join(root, "tsconfig.json")],
    { encoding: "utf8" },
  );
  const errors = stdout.split("\n").filter((line) => / error TS/.test(line)).length;
  if (errors > 0) say(`${revision}: ${errors} errors of types, some benches may not run`);
  return { root, revision };
}

/** Packages of the same lock file are shared. */
function installModules(root: string, say: (text: string) => void): void {
  const lock = (at: string): string => readFileSync(join(at, "package-lock.json"), "utf8");
  if (lock(root) === lock(ROOT)) {
    symlinkSync(join(ROOT, "node_modules"), join(root, "node_modules"));
    return;
  }
  say("npm ci");
  const words = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
  execFileSync("npm", words, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
}
