#!/usr/bin/env bash
# Runs the conformance program of OCI's distribution-spec against a registry:
#   scripts/conformance.sh 127.0.0.1:5050 [USER PASSWORD]
#   scripts/conformance.sh live
# "live" against that of a daemon (bin/shoald) that it starts and stops; without an address
# against one that a test serves, over a store on disk. Every part of it
# is on: pull, push, content discovery, content management, and cancelling an upload. Three
# kinds of data are off, for Shoal refuses them by rule:
#   sha512            the store names blobs by SHA-256; the specification asks for no other
#   nondistributable  a layer that is fetched from an address which the image names
#   sparse            an image of which a part is nowhere (off in the program, too)
set -euo pipefail
cd "$(dirname "$0")/.."

(cd tools && go build -o ../bin/oci-conformance github.com/opencontainers/distribution-spec/conformance)
if [ $# = 0 ]; then
	exec go test -v -tags conformance -count 1 -timeout 5m -run '^TestConformance$' ./images/registry
fi

out=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || { kill "$daemon"; wait "$daemon" || true; }; rm -rf "$out"' EXIT
if [ "$1" = live ]; then
	shoal() { bin/shoal -H "unix://$out/shoal.sock" "$@"; }
	bin/shoald --config /dev/null --data "$out/data" --socket "$out/shoal.sock" --listen 127.0.0.19 \
		--registry 127.0.0.19:5050 --upstream none >"$out/log" 2>&1 &
	daemon=$!
	for _ in $(seq 100); do
		[ -S "$out/shoal.sock" ] && break
		sleep 0.1
	done
	shoal init >/dev/null || { cat "$out/log" >&2; exit 1; }
	set -- 127.0.0.19:5050 shoal "$(shoal image login --print)"
fi
export OCI_CONFIGURATION=/dev/null OCI_RESULTS_DIR=$out OCI_VERSION=1.1 OCI_TLS=disabled
export OCI_REGISTRY=$1 OCI_USERNAME=${2:-} OCI_PASSWORD=${3:-}
export OCI_REPO1=conformance/one OCI_REPO2=conformance/two
export OCI_API_BLOBS_UPLOAD_CANCEL=true OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_MANIFESTS_DIGEST_HEADER=true
export OCI_DATA_SHA512=false OCI_DATA_NONDISTRIBUTABLE=false OCI_DATA_SPARSE=false

# It ends with 0 if it could not begin; a run that tested nothing is none.
status=0
bin/oci-conformance >"$out/report" 2>&1 || status=$?
sed -n '/^OCI Conformance Result/,$p' "$out/report"
passed=$(awk '/^  Pass\.*:/ {print $NF}' "$out/report")
unwanted=$(awk '/^  (Skip|FAIL|Error)\.*:/ {n += $NF} END {print n + 0}' "$out/report")
if [ "$status" != 0 ] || [ "${passed:-0}" -lt 500 ] || [ "$unwanted" != 0 ]; then
	sed '/^OCI Conformance Result/,$d' "$out/report" >&2
	echo "conformance: ${passed:-0} passed, $unwanted failed or were skipped, exit status $status" >&2
	exit 1
fi
