# Sourced by script/test and script/demo, after common.sh: from a fresh clone to built JavaScript.
# shellcheck shell=bash

require_node() {
  command -v node >/dev/null || die "Node.js 20.19 or newer is needed: install it and put it on PATH"
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
    die "Node.js 20.19 or newer is needed; this is $(node --version)"
}

install_modules() {
  cd "$BPFHV_ROOT" || return
  [ node_modules/.package-lock.json -nt package-lock.json ] && return
  say "npm ci"
  quietly npm-ci npm ci --no-audit --no-fund --ignore-scripts
}

build_sources() {
  cd "$BPFHV_ROOT" || return
  say "build"
  quietly build node_modules/.bin/tsc -p tsconfig.json
}
