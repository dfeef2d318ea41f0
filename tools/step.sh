#!/usr/bin/env bash
# Runs one step of `make test` under a heading and says how long it took:  step.sh HEADING COMMAND...
set -euo pipefail
heading=$1
shift
printf '\n=== %s\n' "$heading"
start=$(date +%s)
status=0
"$@" || status=$?
printf '=== %s: %s after %d s\n' "$heading" "$([ "$status" -eq 0 ] && echo passed || echo FAILED)" $(($(date +%s) - start))
exit "$status"
