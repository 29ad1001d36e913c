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

# What loadtest.sh and soak.sh share: sets TRAWL (built, unless it names a binary), worker, writers, sender (the generator's
# lcores), eal, generator_memory, cores and memory.
prepare_load() {
    if [ -z "${TRAWL:-}" ]; then
        "$ROOT/scripts/install-deps.sh" build
        say "building (release)" >&2
        (cd "$ROOT" && cargo build --release --locked --bin trawl)
        TRAWL=$TARGET_DIR/release/trawl
    fi
    need_apt dpdk python3 util-linux || die "packages are missing"
    local count
    mapfile -t cores < <(cores_allowed)
    count=${#cores[@]}
    [ "$count" -ge 2 ] || die "a load test needs two cores"
    worker=${cores[-1]}
    if [ "$count" -ge 4 ]; then
        writers=${cores[*]:1:count-3} sender="0@${cores[0]},1@${cores[-2]}"
    else
        writers=${cores[0]} sender="0@${cores[0]},1@${cores[0]}"
        warn "$count cores: the sender shares core ${cores[0]} with writers and merge"
    fi
    # vhost maps the other process's memory by its file descriptor: that takes few and large files.
    # A ring of more than 8192 needs a piece of memory that no hugepage holds, which only virtual addresses make contiguous.
    eal="--no-pci --in-memory --iova-mode=va --single-file-segments -m 512" generator_memory="--in-memory --single-file-segments -m 256"
    if ! ensure_hugepages 700; then
        warn "no 700 free hugepages: figures are those of --no-huge and ordinary pages"
        eal="--no-pci --no-huge --in-memory -m 256" generator_memory="--no-huge -m 256"
    fi
    read -ra memory <<<"$eal"
}

# Builds the plug-in that paces testpmd: `build_pacer OUT`.
build_pacer() {
    local flags
    read -ra flags < <(pkg-config --cflags --libs libdpdk)
    cc -O2 -shared -fPIC -o "$1" "$ROOT/scripts/pace.c" "${flags[@]}" || die "scripts/pace.c cannot be built"
}

# What the benches of one worker share: sets TRAWL (built, unless it names a binary), MAIN and POLL (the worker's core, which nothing else gets),
# cores and memory (of EAL, words). Arguments are the packages that this bench needs.
prepare_bench() {
    need_apt util-linux "$@" || die "packages are missing"
    mapfile -t cores < <(cores_allowed)
    [ "${#cores[@]}" -ge 2 ] || die "a benchmark needs two cores"
    MAIN=${cores[0]} POLL=${cores[-1]}
    memory=(-m 256)
    if ! ensure_hugepages 512; then
        warn "no 512 free hugepages: figures are those of --no-huge and ordinary pages"
        memory+=(--no-huge)
    fi
    [ -z "${TRAWL:-}" ] || return 0
    "$ROOT/scripts/install-deps.sh" build
    say "building (release)"
    (cd "$ROOT" && cargo build --release --locked --bin trawl)
    TRAWL=$TARGET_DIR/release/trawl
}

# `keep_result NAME TITLE TEXT COMMAND <TABLE`: writes a result with the machine's facts into benches/results and shows it.
keep_result() {
    local out
    out=$ROOT/benches/results/$(date -u +%Y-%m-%dT%H%M%SZ)-$1.md
    {
        printf '# %s, %s\n\n%s\n\n' "$2" "$(date -u +%Y-%m-%d)" "$3"
        cat
        # shellcheck disable=SC2016  # Markdown's backquotes
        printf '\nMachine: %s, %s cores; %s; Linux %s; DPDK %s, memory `%s`; %s; commit %s.\n\nCommand: `%s`\n' \
            "$(lscpu | sed -n 's/^Model name: *//p' | head -n 1)" "${#cores[@]}" \
            "$(awk '/^MemTotal:/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)" "$(uname -r)" \
            "$(pkg-config --modversion libdpdk)" "${memory[*]}" "$(rustc --version | cut -d ' ' -f 1,2)" \
            "$(git -C "$ROOT" rev-parse --short HEAD 2>/dev/null || echo unknown)" "$4"
    } >"$out"
    cat "$out"
    say "kept as ${out#"$ROOT"/}"
}
