#!/usr/bin/env bash
# Checks that trawl compiles against newer DPDK than this system's: `scripts/test-dpdk-headers.sh [SUITE...]`.
#
# Takes DPDK's headers out of Debian's packages, trixie's (24.11) and sid's (25.11) by default, without installing anything, and runs
# `cargo check` with them: shim.c and ring.c are compiled and the bindings are made. Nothing is linked or run.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

[ "$#" -gt 0 ] || set -- trixie sid
cd "$ROOT"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# `headers SUITE FOLDER`: the headers of that suite's libdpdk-dev.
headers() {
    local suite=$1 folder=$2
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/root"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >"$folder/sources.list"
    local options=(-o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$folder/lists"
        -o "Dir::Cache=$folder/cache" -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root -qq)
    apt-get "${options[@]}" update
    (cd "$folder" && apt-get "${options[@]}" download libdpdk-dev)
    dpkg-deb -x "$folder"/libdpdk-dev*.deb "$folder/root"
}

for suite in "$@"; do
    say "DPDK of Debian $suite"
    headers "$suite" "$WORK/$suite" || die "libdpdk-dev of $suite cannot be had: it comes from deb.debian.org"
    export PKG_CONFIG_SYSROOT_DIR=$WORK/$suite/root
    export PKG_CONFIG_PATH=$PKG_CONFIG_SYSROOT_DIR/usr/lib/x86_64-linux-gnu/pkgconfig
    note "DPDK $(pkg-config --modversion libdpdk)"
    cargo check --locked --lib --bin trawl
done
