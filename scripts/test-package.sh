#!/usr/bin/env bash
# Tries the Debian package as a new user would: a fresh Debian 12 with a booted systemd, in namespaces of this host's kernel.
# Install, start, capture on a veth, a hang, a disk that stands still, a stop during an upload, an upgrade with a changed config, purge.
#
#   scripts/test-package.sh                   with a release build
#   scripts/test-package.sh --binary FILE     with this program, say target/debug/trawl
#
# Needs root and a network for the first run, which fetches Debian into target/debian12-root. What happens in the booted system is
# packaging/boot-test.sh; its words are printed, and are in target/test-logs/package.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

is_root || die "a booted systemd needs root: sudo $0"
BASE=$TARGET_DIR/debian12-root
OUT=$TARGET_DIR/test-logs/package
MIRROR=http://deb.debian.org
need_apt mmdebstrap lintian e2fsprogs util-linux || exit 1

package=$(TRAWL_DEB_FAST=yes scripts/package.sh "$@" | tail -n 1)
# The package with the symbols is cargo-deb's alone: it has no documents, for which lintian would want it marked as built by debhelper.
say "lintian"
lintian --fail-on error --tag-display-limit 0 "$package" 2> >(grep -v 'running with root' >&2) ||
    die "lintian finds errors"

work=$(mktemp -d)
# The mounts are those of the namespaces and end with them; the disks are plain files.
trap 'rm -rf "$work"' EXIT

# A second version with another config, which is what an upgrade meets.
say "making a second version of the package"
dpkg-deb -R "$package" "$work/second"
sed -i 's/^Version: .*/&+2/' "$work/second/DEBIAN/control"
echo '# A line that the first version did not have.' >>"$work/second/etc/trawl/trawl.toml"
mkdir -p "$work/pkg"
cp "$package" "$work/pkg/first.deb"
dpkg-deb -Zgzip -z1 -b "$work/second" "$work/pkg/second.deb" >/dev/null
rm -rf "$work/second"

if [ ! -e "$BASE/complete" ]; then
    say "fetching Debian 12 into $BASE (a minute, once)"
    rm -rf "$BASE"
    mmdebstrap --quiet --variant=minbase --include=systemd-sysv,dbus,udev,iproute2,curl,ca-certificates bookworm "$BASE" \
        "deb $MIRROR/debian bookworm main" "deb $MIRROR/debian bookworm-updates main" \
        "deb $MIRROR/debian-security bookworm-security main"
    touch "$BASE/complete"
fi
# What the package depends on is fetched now; the booted system has no network.
depends=$(dpkg-deb -f "$package" Depends | sha256sum | cut -c1-16)
if [ ! -e "$BASE/fetched-$depends" ]; then
    say "fetching what the package depends on"
    mkdir -p "$BASE/pkg"
    cp "$package" "$BASE/pkg/"
    # Docker's settings, which mmdebstrap may copy, would remove what was fetched.
    rm -f "$BASE"/etc/apt/apt.conf.d/docker-*
    chroot "$BASE" sh -ec "apt-get -qq update
        apt-get -qq -y --no-install-recommends --download-only install /pkg/$(basename "$package")" >/dev/null
    rm -rf "$BASE/pkg"
    touch "$BASE/fetched-$depends"
fi

for disk in spool out; do
    truncate -s 512M "$work/$disk.img"
    mkfs.ext4 -q -F "$work/$disk.img"
done
rm -rf "$OUT" && mkdir -p "$OUT"
cp packaging/boot-test.sh "$work/pkg/"

say "booting systemd"
began=$SECONDS
# The exit status of its process 1 is no verdict: a power-off ends it by a signal.
WORK=$work BASE=$BASE OUT=$OUT timeout --kill-after=10 600 unshare --mount --propagation private --pid --fork --net --uts --ipc \
    --cgroup bash packaging/boot.sh >"$OUT/console" 2>&1 || true
cat "$OUT/log" 2>/dev/null || tail -n 50 "$OUT/console"
if [ "$(cat "$OUT/verdict" 2>/dev/null)" != passed ]; then
    tail -n 60 "$OUT/journal" 2>/dev/null || true
    die "the package does not do what it should; see $OUT"
fi
say "the package does what it should ($((SECONDS - began)) s)"
