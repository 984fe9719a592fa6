#!/usr/bin/env bash
# Debian packages in bin/dist, made with dpkg-deb alone: scripts/deb.sh VERSION [amd64|arm64|armhf...]
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
shift
[ $# -gt 0 ] || set -- amd64 arm64 armhf
out=$PWD/bin/dist
mkdir -p "$out"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)} # dpkg-deb clamps times to it
# Debian's versions begin with a digit and sort: 1.2.0~rc1, 1.2.0, 1.2.0+4.gabc1234. A
# commit without a tag before it sorts by its time, before every release.
if [[ $version =~ ^v?[0-9]+\.[0-9]+ ]]; then
	deb=$(sed -E 's/^v//; s/-(alpha|beta|rc)/~\1/; s/-/+/; s/-/./g' <<<"$version")
else
	deb=0.0.0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M).${version//-/.}
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# completions installs the shells' completion where this version of shoal has it. The
# package's own binary may be of another machine's kind.
completions() {
	local root=$1
	go build -o "$work/shoal" ./cmd/shoal
	"$work/shoal" completion bash >"$work/bash" 2>/dev/null || return 0
	install -D -m 0644 "$work/bash" "$root/usr/share/bash-completion/completions/shoal"
	"$work/shoal" completion zsh | install -D -m 0644 /dev/stdin "$root/usr/share/zsh/vendor-completions/_shoal"
	"$work/shoal" completion fish | install -D -m 0644 /dev/stdin "$root/usr/share/fish/vendor_completions.d/shoal.fish"
}

for arch in "$@"; do
	root=$work/$arch
	mkdir -p "$root/usr/bin" "$root/DEBIAN"
	scripts/binaries.sh "$version" "$arch" "$root/usr/bin"
	install -D -m 0644 packaging/systemd/shoald.service "$root/lib/systemd/system/shoald.service"
	install -D -m 0644 packaging/shoald.yaml "$root/etc/shoal/shoald.yaml"
	install -D -m 0644 LICENSE "$root/usr/share/doc/shoal/copyright"
	install -D -m 0644 README.md "$root/usr/share/doc/shoal/README.md"
	completions "$root"
	install -m 0755 packaging/debian/{postinst,prerm,postrm} "$root/DEBIAN/"
	echo /etc/shoal/shoald.yaml >"$root/DEBIAN/conffiles"
	cat >"$root/DEBIAN/control" <<-CONTROL
		Package: shoal
		Version: $deb
		Architecture: $arch
		Maintainer: The Shoal Authors <shoal@shoalnet.invalid>
		Section: admin
		Priority: optional
		Depends: passwd
		Recommends: docker.io | docker-ce
		Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
		Homepage: https://github.com/shoalnet/shoal
		Description: leaderless container orchestrator
		 Shoal runs containers on a group of machines that nobody leads: every peer
		 holds the whole desired state and carries out its own share.
		 .
		 This package has the daemon, shoald, and the command, shoal.
	CONTROL
	(cd "$root" && find etc lib usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
	find "$root" -type d -exec chmod 0755 {} +
	find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
	dpkg-deb --root-owner-group -Zxz --build "$root" "$out/shoal_${deb}_$arch.deb" >/dev/null
	echo "$out/shoal_${deb}_$arch.deb"
done
