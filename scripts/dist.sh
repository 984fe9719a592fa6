#!/usr/bin/env bash
# Static binaries for every platform as archives in bin/dist: scripts/dist.sh VERSION [ARCH...]
# The same commit and toolchain give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
shift
[ $# -gt 0 ] || set -- amd64 arm64 armv7
out=bin/dist
mkdir -p "$out"
# The time of every file: that of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

for arch in "$@"; do
	name=shoal_${version}_linux_$arch
	rm -rf "${out:?}/$name"
	mkdir -p "$out/$name"
	scripts/binaries.sh "$version" "$arch" "$out/$name"
	cp LICENSE README.md "$out/$name/"
	cp packaging/systemd/shoald.service packaging/shoald.yaml "$out/$name/"
	chmod 0755 "$out/$name" "$out/$name/shoal" "$out/$name/shoald"
	chmod 0644 "$out/$name"/{LICENSE,README.md,shoald.service,shoald.yaml}
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar \
		-C "$out" -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
	rm -rf "${out:?}/$name"
done
cd "$out"
find . -maxdepth 1 -name 'shoal_*' -type f -printf '%f\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
cat SHA256SUMS
