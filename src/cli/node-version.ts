/**
 * Ends the process if this Node.js is older than package.json's `engines`. Imported before
 * everything else: an older one may start, and fail later at whatever it lacks.
 */
const NEEDED = [20, 19] as const;

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < NEEDED[0] || (major === NEEDED[0] && minor < NEEDED[1])) {
  process.stderr.write(
    `bpfhv: needs Node.js ${NEEDED.join(".")} or newer, this is ${process.versions.node}: ` +
      "install a newer one and put it on PATH\n",
  );
  process.exit(1);
}
