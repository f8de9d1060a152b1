# Sourced by script/test: whole runs in a row, to find what fails once in twenty.
# shellcheck shell=bash

# repeat_runs N COMMAND...: runs the command N times; one line a run, then failures by test. Ctrl-C
# ends it with the table. The command reports as script/test does: "failed: NAME" lines, and "A
# passed, B failed, C skipped" at the end.
repeat_runs() {
  local runs=$1 done=0 bad=0 status=0 stopped='' logs start log summary
  shift
  logs=$(mktemp -d "${TMPDIR:-/tmp}/bpfhv-repeat-XXXXXX")
  # The running command gets the signal, too, and ends in order.
  trap 'stopped=130' INT
  trap 'stopped=143' TERM
  while [ $done -lt "$runs" ] && [ -z "$stopped" ]; do
    log="$logs/$((done + 1)).log" start=$SECONDS status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    # An interrupted run is not counted.
    [ -z "$stopped" ] && [ $status -ne 130 ] && [ $status -ne 143 ] || {
      stopped=${stopped:-$status}
      break
    }
    done=$((done + 1))
    summary=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1) || true
    printf 'run %d/%d: %s, status %d, in %d s\n' \
      "$done" "$runs" "${summary:-no summary}" $status $((SECONDS - start))
    if [ $status -eq 0 ]; then rm -f "$log"; continue; fi
    bad=$((bad + 1))
    grep '^failed: ' "$log" | sed 's/^failed: /  failed: /' || true
    grep -q '^failed: ' "$log" || printf 'failed: (status %d, see the log)\n' $status >>"$log"
  done
  trap - INT TERM
  printf '\n%d runs, %d of them failed%s\n' "$done" "$bad" "${stopped:+, stopped before the end}"
  if [ $bad -gt 0 ]; then
    # Counts a failure once per run, even if it is reported repeatedly.
    for log in "$logs"/*.log; do { grep "^failed: " "$log" || true; } | sort -u; done |
      sed 's/^failed: //' | sort | uniq -c | sort -rn | sed 's/^ *\([0-9]*\) \(.*\)/\1 times  \2/'
    printf 'logs of the runs that failed: %s\n' "$logs"
  else
    rm -rf "$logs"
  fi
  [ -z "$stopped" ] || return "$stopped"
  [ $bad -eq 0 ]
}
