#!/usr/bin/env bash
# Builds what ships for one platform: scripts/binaries.sh VERSION amd64|arm64|armv7|armhf DIR
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 arch=$2 dir=$3
export CGO_ENABLED=0 GOOS=linux
case $arch in
amd64 | arm64) export GOARCH=$arch ;;
armv7 | armhf) export GOARCH=arm GOARM=7 ;;
*)
	echo "error: nothing is built for $arch; choose amd64, arm64 or armv7" >&2
	exit 2
	;;
esac
go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$version" -o "$dir/" ./cmd/shoald ./cmd/shoal
