#!/usr/bin/env bash
# Looks for HAProxy, which the bench compares published ports with. Where there is none:
# as root, with YES=1, installs Debian's; otherwise says so in one line, and the bench
# measures without it. It never fails for want of it.
set -euo pipefail

if command -v haproxy >/dev/null || [[ -x /usr/sbin/haproxy ]]; then
	exit 0
fi
if [[ ${YES:-} != 1 || $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
	printf 'haproxy: none here, the bench goes without; to compare: apt-get install haproxy (or again as root with YES=1)\n'
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends haproxy
