#!/usr/bin/env bash
# Makes sure that a Docker Engine answers. One that is there is used and never touched.
# Where there is none: as root, with YES=1 or a yes on the terminal, installs Debian's
# docker.io and starts it; otherwise says in one line what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly default=unix:///var/run/docker.sock
readonly host=${DOCKER_HOST:-$default}
readonly log=/var/log/shoal-dockerd.log

say() { printf 'engine: %s\n' "$*"; }
die() {
	printf 'engine: %s\n' "$*" >&2
	exit 1
}

# answers asks the engine for a sign of life with whatever this machine has. Go is
# always there, but slow to build the first time.
answers() {
	if [[ $host == unix://* && ! -S ${host#unix://} ]]; then
		return 1
	elif [[ $host == unix://* ]] && command -v curl >/dev/null; then
		curl -fsS -m 5 -o /dev/null --unix-socket "${host#unix://}" http://engine/_ping 2>/dev/null
	elif command -v docker >/dev/null; then
		timeout 10 docker version >/dev/null 2>&1
	else
		go run ./internal/pack/cmd/pack -ping -host "$host" 2>/dev/null
	fi
}

running() { pgrep -x dockerd >/dev/null 2>&1 || pidof dockerd >/dev/null 2>&1; }

# await waits until the engine answers, 60 s at most.
await() {
	local until=$((SECONDS + 60))
	until answers; do
		if ((SECONDS >= until)); then
			return 1
		fi
		sleep 0.5
	done
}

agreed() {
	if [[ ${YES:-} == 1 ]]; then
		return 0
	fi
	if [[ ! -t 0 ]]; then
		return 1
	fi
	local word
	read -r -p "engine: $1 [y/N] " word
	[[ $word == [yY]* ]]
}

install() {
	export DEBIAN_FRONTEND=noninteractive
	local packages=(docker.io iptables)
	apt-get update
	if apt-cache show docker-cli >/dev/null 2>&1; then # a package of its own from Debian 13 on
		packages+=(docker-cli)
	fi
	apt-get install -y --no-install-recommends "${packages[@]}"
}

start() {
	if [[ -d /run/systemd/system ]]; then
		systemctl start docker
		return
	fi
	# No service manager: it is ours to start. A pid file without a dockerd is left
	# over from an earlier life of this machine, and dockerd would refuse to start.
	rm -f /var/run/docker.pid
	say "starting dockerd, which logs to $log"
	setsid dockerd --host "$default" >>"$log" 2>&1 </dev/null &
}

if answers; then
	say "the one at $host answers"
	exit 0
fi
if [[ $host != "$default" ]]; then
	die "nothing answers at DOCKER_HOST=$host; start it, or unset DOCKER_HOST"
fi
if [[ -S ${host#unix://} && ! -w ${host#unix://} ]]; then
	die "no permission for ${host#unix://}; run as root, or: sudo usermod -aG docker $(id -un), and log in again"
fi
if running; then
	await || die "dockerd runs but does not answer at $host within 60 s; see its log"
	say "the one at $host answers"
	exit 0
fi
if [[ $(id -u) != 0 ]]; then
	die "no Docker Engine answers at $host; install one: sudo apt-get install docker.io"
fi
if ! command -v dockerd >/dev/null; then
	if ! command -v apt-get >/dev/null; then
		die "no Docker Engine answers at $host; install one: https://docs.docker.com/engine/install/"
	fi
	agreed "no Docker Engine here; install Debian's docker.io and start it?" ||
		die "no Docker Engine here; install one: apt-get install docker.io (or again with YES=1)"
	install
elif ! agreed "the Docker Engine here is not running; start it?"; then
	die "the Docker Engine here is not running; start it: systemctl start docker, or dockerd (or again with YES=1)"
fi
if ! running; then # installing it may have started it
	start
fi
await || die "dockerd does not answer at $host within 60 s; see $log, last lines: $(tail -n 3 "$log" 2>/dev/null || true)"
say "the one at $host answers now"
