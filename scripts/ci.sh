#!/usr/bin/env bash
# Everything that must be green before a change lands, and proof that it left nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
export YES=1

step() {
	local from=$SECONDS
	printf '\n=== %s\n' "$*"
	"$@"
	printf '=== %s: ok in %d s\n' "$*" $((SECONDS - from))
}

# ours lists what a run must not leave behind on this machine.
ours() {
	docker ps -aq --filter label=net.shoal.cluster 2>/dev/null | sed 's/^/container /'
	docker network ls -q --filter label=net.shoal.cluster 2>/dev/null | sed 's/^/network /'
	docker volume ls -q --filter label=net.shoal.cluster 2>/dev/null | sed 's/^/volume /'
	# A dead process that nobody waited for holds nothing; only living ones count.
	ps -C shoald -o pid=,stat= | awk '$2 !~ /^Z/ {print "process shoald " $1}' || true
}

before=$(ours | sort || true)
step make lint
step make build
step make test
step make kill-loop KILLS=30 BUDGET=35s
step make conformance REGISTRY=live
step make integration
step make lab-test
step make lab-smoke
step make sim SUITE=all
step make demo
step make demo-down

left=$(comm -13 <(printf '%s\n' "$before") <(ours | sort || true) || true)
if [ -n "$left" ]; then
	printf 'left behind:\n%s\n' "$left" >&2
	exit 1
fi
printf '\nall green in %d s\n' "$SECONDS"
