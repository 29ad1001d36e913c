# Shared shell functions of the scripts: words, privileges, packages, hugepages, free ports.
# Sourced, never run. Sets ROOT (the repository) and leaves the caller's options alone.
# shellcheck shell=bash disable=SC2034

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The build folder as cargo sees it, so that the scripts find binaries where cargo put them.
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}

if [ -t 1 ]; then
    BOLD=$'\033[1m' DIM=$'\033[2m' RED=$'\033[31m' PLAIN=$'\033[0m'
else
    BOLD='' DIM='' RED='' PLAIN=''
fi

say() { printf '%s\n' "${BOLD}==> $*${PLAIN}"; }
note() { printf '%s\n' "${DIM}    $*${PLAIN}"; }
warn() { printf '%s\n' "${RED}warning:${PLAIN} $*" >&2; }
die() {
    printf '%s\n' "${RED}error:${PLAIN} $*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

# Root's rights without a question asked: as root, or through sudo that needs no password.
may_root() { is_root || { have sudo && sudo -n true 2>/dev/null; }; }
as_root() { if is_root; then "$@"; else sudo -n "$@"; fi; }

# Builds and installs a tool of cargo's, `install_tool NAME@VERSION`. Unoptimised: it builds in a third of the time, and no tool here
# works for as long as that saves.
install_tool() { CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --debug "$1"; }

# Whether packages are installed, and which are not: `apt_missing NAME...` prints those.
apt_missing() {
    local name
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || printf '%s\n' "$name"
    done
}

# Installs the packages that are missing. The lists are fetched at most once a run, and only if something is missing.
APT_UPDATED=''
need_apt() {
    local missing
    mapfile -t missing < <(apt_missing "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    if ! have apt-get; then
        warn "these Debian packages are missing and there is no apt-get here: ${missing[*]}"
        return 1
    fi
    if ! may_root; then
        warn "missing: ${missing[*]}; as root: apt-get install ${missing[*]}"
        return 1
    fi
    if [ -z "$APT_UPDATED" ]; then
        say "fetching the package lists"
        as_root apt-get -qq update || return 1
        APT_UPDATED=yes
    fi
    say "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# Free hugepages of 2 MiB, as a number.
hugepages_free() { awk '/^HugePages_Free:/ { print $2 } END { if (!NR) print 0 }' /proc/meminfo; }
hugetlbfs_mounted() { grep -q ' hugetlbfs ' /proc/mounts; }

# Whether this user can map COUNT hugepages. EAL with --in-memory needs no mount, but the limit on locked memory counts.
hugepages_usable() { is_root && [ "$(hugepages_free)" -ge "$1" ]; }

# `ensure_hugepages COUNT`: reserves and mounts as root if memory allows; fails quietly otherwise. What was reserved stays.
ensure_hugepages() {
    local want=$1 total free_mib
    is_root || return 1
    total=$(awk '/^HugePages_Total:/ { print $2 }' /proc/meminfo)
    if [ "${total:-0}" -lt "$want" ]; then
        free_mib=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
        # Builds need memory too: never take more than a third of what is available.
        [ $(((want - ${total:-0}) * 2 * 3)) -le "$free_mib" ] || return 1
        { echo "$want" >/proc/sys/vm/nr_hugepages; } 2>/dev/null || return 1
        note "reserved $want hugepages of 2 MiB; they stay reserved (echo 0 > /proc/sys/vm/nr_hugepages gives them back)"
    fi
    if ! hugetlbfs_mounted; then
        mkdir -p /dev/hugepages && mount -t hugetlbfs -o pagesize=2M none /dev/hugepages 2>/dev/null || return 1
        note "mounted hugetlbfs at /dev/hugepages; it stays mounted"
    fi
    [ "$(hugepages_free)" -ge "$want" ]
}

# Whether network namespaces can be made: root with CAP_SYS_ADMIN, which containers often lack.
netns_possible() {
    local name="trawl-probe-$$"
    is_root && have ip && ip netns add "$name" 2>/dev/null && ip netns del "$name"
}

# A TCP port of the loopback address that nothing listens on now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# `wait_until SECONDS COMMAND...`: repeats until it succeeds; fails when the time is up.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# Cores that this process may use, one a line.
cores_allowed() {
    python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)), sep="\n")'
}
