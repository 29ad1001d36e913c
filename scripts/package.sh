#!/usr/bin/env bash
# Makes the package for Debian 12, and a second one with its debug symbols, in target/package/debian.
#
#   scripts/package.sh                    builds the release, which takes minutes
#   scripts/package.sh --binary FILE      packages a binary that is there already, for tests of the package
#
# TRAWL_DEB_FAST=yes compresses little. What is in it stands in Cargo.toml (package.metadata.deb) and packaging/. The last line that is printed is the package's path.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

CARGO_DEB=3.8.0
TOOLS=$TARGET_DIR/package-tools
STAGE=$TARGET_DIR/package
VERSION=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# The release of Debian is a part of the version: another one has another DPDK.
DEB_VERSION=$VERSION-1~deb12
binary=''
case ${1:-} in
'') ;;
--binary) binary=${2:?usage: "$0" --binary FILE} ;;
*) die "usage: $0 [--binary FILE]" ;;
esac

need_apt binutils dpkg xz-utils >&2 || exit 1
[ "$("$TOOLS/bin/cargo-deb" --version 2>/dev/null)" = "cargo-deb $CARGO_DEB" ] || {
    say "installing cargo-deb $CARGO_DEB (some minutes, once)" >&2
    cargo install --quiet --locked --force --root "$TOOLS" --target-dir "$TOOLS/build" "cargo-deb@$CARGO_DEB"
    rm -rf "$TOOLS/build"
}
if [ -z "$binary" ]; then
    cargo build --release --locked
    binary=$TARGET_DIR/release/trawl
fi
# Packages of DPDK's drivers are named in Cargo.toml, with the number of its libraries.
ldd "$binary" | grep -q 'librte_eal\.so\.23 ' || die "$binary is not linked with DPDK 22.11: the package is for Debian 12"

# cargo-deb takes what cargo would have built from there.
rm -rf "$STAGE"
pages=$STAGE/release/pages
mkdir -p "$pages"
cp "$binary" "$STAGE/release/trawl"
"$binary" man "$pages/man" >/dev/null
gzip -9n "$pages"/man/*.1
gzip -9nc CHANGELOG.md >"$pages/upstream.gz"
for shell in bash zsh fish; do "$binary" completions "$shell" >"$pages/trawl.$shell"; done

# What the newest section of CHANGELOG.md says, as Debian writes it.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
maintainer=$(sed -n '/^\[package.metadata.deb\]/,/^\[/s/^maintainer = "\(.*\)"/\1/p' Cargo.toml)
{
    printf 'trawl (%s) bookworm; urgency=medium\n\n' "$DEB_VERSION"
    awk '/^## / { if (seen++) exit; next } seen && /^- / { print "  * " substr($0, 3) } seen && /^  / { print "  " $0 }' CHANGELOG.md |
        fold -s -w 78 | sed 's/^\([^ ]\)/    \1/; s/ *$//'
    printf '\n -- %s  %s\n' "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$pages/changelog.gz"

say "making the package" >&2
# The system's own xz takes seconds where cargo-deb's takes minutes.
compress=(--compress-system)
[ -z "${TRAWL_DEB_FAST:-}" ] || compress+=(--fast)
CARGO_TARGET_DIR=$STAGE "$TOOLS/bin/cargo-deb" --no-build --dbgsym --deb-version "$DEB_VERSION" --quiet "${compress[@]}" >&2
package=$(find "$STAGE/debian" -name 'trawl_*.deb')
# What cargo-deb calls .ddeb is a package of Debian too.
for symbols in "$STAGE"/debian/*.ddeb; do mv "$symbols" "${symbols%.ddeb}.deb"; done
note >&2 "$(du -h "$STAGE"/debian/*.deb | tr '\n' ' ')"
echo "$package"
