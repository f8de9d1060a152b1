# Sourced by the scripts: paths, and progress reports.
# shellcheck shell=bash
set -euo pipefail

BPFHV_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BPFHV_CACHE=${BPFHV_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bpfhv}
export BPFHV_CACHE

# Bold on a terminal, unless NO_COLOR is set (no-color.org).
bold='' plain=''
if [ -t 2 ] && [ -z "${NO_COLOR-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '%s==>%s %s\n' "$bold" "$plain" "$*" >&2; }
die() { printf 'bpfhv: %s\n' "$*" >&2; exit 1; }

# Twelve digits that name the content of the given files and words.
content_key() {
  local files=() words=()
  for item in "$@"; do if [ -f "$item" ]; then files+=("$item"); else words+=("$item"); fi; done
  { printf '%s\n' "${words[@]-}"; cat "${files[@]}"; } | sha256sum | cut -c1-12
}

# Runs a noisy step: its output goes to a log, which is shown if the step fails.
quietly() {
  local log="$BPFHV_CACHE/log/$1.log" start=$SECONDS
  shift
  mkdir -p "$BPFHV_CACHE/log"
  if ! "$@" >"$log" 2>&1 </dev/null; then
    tail -n 30 "$log" >&2
    die "that failed: the whole output is in $log"
  fi
  printf '    %ss\n' $((SECONDS - start)) >&2
}

# One process at a time makes what is named, for all checkouts; the lock goes with the process.
take_lock() {
  mkdir -p "$BPFHV_CACHE"
  exec 9>"$BPFHV_CACHE/lock-$1"
  flock -n 9 && return
  say "another process is preparing the same: waiting for it"
  flock -w 1800 9 || die "another process has held $BPFHV_CACHE/lock-$1 for half an hour"
}

# Debian packages that the host itself needs. Does nothing if they are installed.
need_packages() {
  local missing=() package status
  for package in "$@"; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) || status=
    [[ $status == *'ok installed' ]] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" -eq 0 ] || die "please install, as root: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  quietly apt-update apt-get update -q
  quietly apt-install apt-get install -y -q --no-install-recommends "${missing[@]}"
}
