#!/usr/bin/env bash
# Fuzzes every target for a while: scripts/fuzz.sh 10s
set -euo pipefail
cd "$(dirname "$0")/.."
budget=${1:-10s}
grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | sort | while read -r file; do
	grep -oE '^func Fuzz[A-Za-z0-9]+' "$file" | awk '{print $2}' | while read -r target; do
		echo "== $target ($(dirname "$file"))"
		# Without a bound an input of some kilobytes is minimized for a minute, and nothing is fuzzed.
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$budget" -fuzzminimizetime 20x "$(dirname "$file")"
	done
done
