#!/usr/bin/env bash
# Runs the seeded simulations. SHOAL_SEED=n replays one seed, SHOAL_SEEDS=n runs that many.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-all}
run() { SHOAL_SIM=1 go test -count=1 -timeout 20m -v -run "$1" "$2" | grep -vE '^(=== (RUN|PAUSE|CONT)|\s+--- PASS)'; }
case "$suite" in
placement) run . ./lab/des ;;
cluster) run . ./lab/cluster ;;
swarm) run . ./images/swarm ;;
all)
	run . ./lab/des
	run . ./lab/cluster
	run . ./images/swarm
	;;
*)
	echo "error: unknown suite \"$suite\"; there are placement, cluster, swarm, all" >&2
	exit 2
	;;
esac
