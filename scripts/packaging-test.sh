#!/usr/bin/env bash
# Builds an archive and a Debian package of this machine's kind, looks at both, and
# installs, upgrades, removes and purges the package in a throw-away copy of this
# machine's root (an overlay in a mount namespace of its own; needs root).
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

# same WHAT GOT WANT
same() { [ "$2" = "$3" ] || fail "$1 is '$2', want '$3'"; }

# inside is what happens in the copy; $1 is the package.
inside() {
	# A systemd that only writes down what it is told.
	mkdir -p /run/systemd/system
	printf '#!/bin/sh\necho "$*" >>/run/told\n' >/usr/bin/systemctl
	chmod 0755 /usr/bin/systemctl
	rm -f /run/told /var/log/dpkg.log
	told() {
		same "what systemd was told at $1" "$(paste -sd, /run/told)" "$2"
		rm -f /run/told
	}
	export DEBIAN_FRONTEND=noninteractive

	dpkg --force-depends -i "$1" >/dev/null
	told install 'daemon-reload,enable shoald.service,start shoald.service'
	getent group shoal >/dev/null || fail "there is no group shoal"
	same 'mode of the data directory' "$(stat -c '%a %U' /var/lib/shoal)" '700 root'
	shoald --check-config >/dev/null || fail "the installed configuration is refused"
	shoal --help >/dev/null || fail "shoal does not run"

	touch /var/lib/shoal/kept
	echo 'back-by: 30s' >>/etc/shoal/shoald.yaml
	dpkg --force-depends -i "$1" >/dev/null
	told upgrade 'daemon-reload,try-restart shoald.service'
	grep -q '^back-by: 30s' /etc/shoal/shoald.yaml || fail "an upgrade forgot the owner's configuration"
	[ -e /var/lib/shoal/kept ] || fail "an upgrade removed data"

	dpkg -r shoal >/dev/null 2>&1
	told removal 'disable --now shoald.service,daemon-reload'
	[ ! -e /usr/bin/shoald ] || fail "a removal left the daemon"
	[ -e /etc/shoal/shoald.yaml ] && [ -e /var/lib/shoal/kept ] || fail "a removal took configuration or data"

	dpkg -P shoal >/dev/null 2>&1
	[ ! -e /etc/shoal ] && [ ! -e /var/lib/shoal ] || fail "a purge left configuration or data"
	! getent group shoal >/dev/null || fail "a purge left the group"

	# Where no systemd runs (containers, minimal machines) nothing is started.
	rm -rf /run/systemd/system /run/told
	dpkg --force-depends -i "$1" >/dev/null
	dpkg -P shoal >/dev/null 2>&1
	[ ! -e /run/told ] || fail "systemctl was called without a systemd"
}

if [ "${1:-}" = inside ]; then
	inside "$2"
	exit
fi

version=v0.0.1-test
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
# What the test makes in bin/dist does not stay there: SHA256SUMS is of releases.
export SOURCE_DATE_EPOCH=1700000000
trap 'rm -rf "$work" bin/dist/shoal_*0.0.1*test*' EXIT

echo '== scripts'
for script in packaging/debian/*; do
	sh -n "$script" || fail "$script is no shell script"
done
if command -v systemd-analyze >/dev/null; then
	said=$(systemd-analyze verify packaging/systemd/shoald.service 2>&1 | grep -v 'is not executable' || true)
	same 'the verdict on the unit' "$said" ''
fi

echo '== archive'
kind=${arch/armhf/armv7}
scripts/dist.sh "$version" "$kind" >/dev/null
tgz=bin/dist/shoal_${version}_linux_$kind.tar.gz
(cd bin/dist && grep -F "$(basename "$tgz")" SHA256SUMS | sha256sum -c --quiet -) || fail "the checksum is wrong"
first=$(sha256sum <"$tgz")
scripts/dist.sh "$version" "$kind" >/dev/null
same 'the archive built again' "$(sha256sum <"$tgz")" "$first"
same 'the list of the archive' "$(tar -tzf "$tgz" | sed -n 's,^[^/]*/,,p' | paste -sd' ')" ' LICENSE README.md shoal shoald shoald.service shoald.yaml'
mkdir "$work/tgz"
tar -xzf "$tgz" -C "$work/tgz" --strip-components 1
same 'the version in the archive' "$("$work/tgz/shoald" --version)" "shoald version $version"
"$work/tgz/shoald" --check-config --config "$work/tgz/shoald.yaml" >/dev/null || fail "shoald.yaml is refused"

echo '== package'
deb=$(scripts/deb.sh "$version" "$arch")
first=$(sha256sum <"$deb")
deb=$(scripts/deb.sh "$version" "$arch")
same 'the package built again' "$(sha256sum <"$deb")" "$first"
same 'the version of the package' "$(dpkg-deb -f "$deb" Version)" '0.0.1+test'
same 'its architecture' "$(dpkg-deb -f "$deb" Architecture)" "$arch"
dpkg-deb -I "$deb" conffiles | grep -qx /etc/shoal/shoald.yaml || fail "shoald.yaml is no conffile"
dpkg-deb -c "$deb" >"$work/list"
for want in '-rwxr-xr-x root/root ./usr/bin/shoal' '-rwxr-xr-x root/root ./usr/bin/shoald' \
	'-rw-r--r-- root/root ./lib/systemd/system/shoald.service' '-rw-r--r-- root/root ./etc/shoal/shoald.yaml'; do
	awk '{print $1, $2, $6}' "$work/list" | grep -qxF -- "$want" || fail "the package lacks '$want'"
done
if awk '{print $2}' "$work/list" | grep -qv '^root/root$'; then fail "not everything is root's"; fi
if "$work/tgz/shoal" completion bash >/dev/null 2>&1; then
	for want in bash-completion/completions/shoal zsh/vendor-completions/_shoal fish/vendor_completions.d/shoal.fish; do
		grep -q "./usr/share/$want\$" "$work/list" || fail "the package lacks $want"
	done
fi
dpkg-deb -x "$deb" "$work/deb"
dpkg-deb -e "$deb" "$work/control"
(cd "$work/deb" && md5sum -c --quiet "$work/control/md5sums") || fail "md5sums are wrong"
for script in postinst prerm postrm; do
	same "mode of $script" "$(stat -c %a "$work/control/$script")" 755
done
go version -m "$work/deb/usr/bin/shoald" | grep -q 'CGO_ENABLED=0' || fail "shoald is not static"

echo '== install'
if [ "$(id -u)" != 0 ]; then
	echo 'not installed: that needs root'
else
	cp "$deb" "$work/shoal.deb"
	cp "$0" "$work/test.sh"
	mkdir "$work/over"
	unshare --mount --propagation private bash -euc '
		mount -t tmpfs none "$1/over"
		mkdir "$1/over/upper" "$1/over/work" "$1/over/root"
		mount -t overlay none -o "lowerdir=/,upperdir=$1/over/upper,workdir=$1/over/work" "$1/over/root"
		root=$1/over/root
		mount -t tmpfs none "$root/run"
		mount -t proc none "$root/proc"
		mkdir -p "$root/pkg"
		cp "$1/shoal.deb" "$1/test.sh" "$root/pkg/"
		mount --bind /dev "$root/dev"
		chroot "$root" bash -c "cd /pkg && mkdir -p x && mv test.sh x/ && bash x/test.sh inside /pkg/shoal.deb"
	' _ "$work"
fi
echo 'ok'
