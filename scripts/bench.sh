#!/usr/bin/env bash
# Compares, in one run on this machine and its disk, at three frame sizes on net_pcap with infinite_rx:
#   rxonly   what dpdk-testpmd receives and throws away: the source's own limit
#   trawl    what trawl captures into its spool ({} takes every frame)
#   tx_pcap  what dpdk-testpmd writes when it forwards into a net_pcap file
# Medians of RUNS runs of SECONDS seconds each. Absolute values belong to the machine; ratios travel.
#
# Where the disk is slower than one core writes, both writers measure the disk; `--dir /dev/shm/bench --write mapped` measures
# the writers on a file system in memory.
#
#   scripts/bench.sh [--runs 3] [--seconds 5] [--sizes "64 imix 1518"] [--dir DIR] [--write direct|mapped|auto] [--verify]
#
# Needs root and hugepages for figures worth keeping. DIR (default: benches/results/raw) decides which disk is measured.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

RUNS=3 SECONDS_EACH=5 SIZES='64 imix 1518' DIR=$ROOT/benches/results/raw WRITE=direct VERIFY=''
while [ $# -gt 0 ]; do
    case $1 in
    --runs) RUNS=$2 && shift 2 ;;
    --seconds) SECONDS_EACH=$2 && shift 2 ;;
    --sizes) SIZES=$2 && shift 2 ;;
    --dir) DIR=$2 && shift 2 ;;
    --write) WRITE=$2 && shift 2 ;;
    --verify) VERIFY=yes && shift ;;
    *) die "usage: see the head of $0" ;;
    esac
done

"$ROOT/scripts/install-deps.sh" build
need_apt dpdk python3 util-linux || die "packages are missing"
mapfile -t cores < <(cores_allowed)
[ "${#cores[@]}" -ge 2 ] || die "a benchmark needs two cores"
MAIN=${cores[0]} POLL=${cores[-1]}
memory=(-m 256)
blocks=256MiB
if ! ensure_hugepages 512; then
    warn "no 512 free hugepages: figures are those of --no-huge and ordinary pages"
    memory+=(--no-huge)
fi
say "building (release)"
(cd "$ROOT" && cargo build --release --locked --bin trawl)
TRAWL=$TARGET_DIR/release/trawl

mkdir -p "$DIR"
WORK=$(mktemp -d "$DIR/run.XXXXXX")
# Half of what is free; with --verify a third, for the merged objects and air.
parts=2
[ -z "$VERIFY" ] || parts=3
SPOOL_GIB=$(($(df --output=avail -B1G "$WORK" | tail -n 1) / parts))
[ "$SPOOL_GIB" -ge 6 ] || die "$DIR has too little free space: 18 GiB are needed, --dir names another place"
pids=()
cleanup() {
    local pid
    for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# testpmd says each second what it received; the first figure covers its start. Prints: packets/s bits/s.
steady() {
    awk -v pps="$1-pps:" -v bps="$1-bps:" '
        { for (i = 1; i < NF; i++) { if ($i == pps) p = $(i + 1); if ($i == bps) { n++; if (n > 2) { ps += p; bs += $(i + 1); m++ } } } }
        END { if (!m) exit 1; printf "%.0f %.0f\n", ps / m, bs / m }' "$2"
}

# `testpmd MODE DEVICE`: runs it for the wanted seconds after a start of about two.
testpmd() {
    local log=$WORK/testpmd.log status=0
    timeout -s TERM -k 10 $((SECONDS_EACH + 3)) dpdk-testpmd -l "$MAIN,$POLL" --no-pci --in-memory "${memory[@]}" \
        --log-level=error --vdev "$2" -- --forward-mode="$1" --auto-start --stats-period=1 \
        --total-num-mbufs=16384 --no-flush-rx </dev/null >"$log" 2>&1 || status=$?
    grep -q 'Accumulated forward statistics' "$log" || die "testpmd ended with $status: $(tail -n 5 "$log")"
}

bench_rxonly() {
    testpmd rxonly "net_pcap0,rx_pcap=$1,infinite_rx=1"
    steady Rx "$WORK/testpmd.log"
}

bench_tx_pcap() {
    testpmd io "net_pcap0,rx_pcap=$1,tx_pcap=$WORK/tx.pcap,infinite_rx=1"
    rm -f "$WORK/tx.pcap"
    steady Tx "$WORK/testpmd.log"
}

bench_trawl() {
    local port token log=$WORK/trawl.log
    port=$(free_port)
    token=bench-$RANDOM$RANDOM
    rm -rf "$WORK/spool" "$WORK/bucket" "$WORK/trawl.db"
    mkdir -m 700 "$WORK/spool" "$WORK/bucket"
    # What "mapped" uses again and again must be there before: on a host that has run for a while it is.
    # It is measured for one second, because a pool in memory is full in two.
    local segment=$((SPOOL_GIB / 2))GiB pool=0 measured=$SECONDS_EACH
    [ "$WRITE" != mapped ] || segment=256MiB pool=$((SPOOL_GIB - 1))GiB measured=1
    # Segments larger than the run: merging starts after the measured time, so that the disk is written once, as by testpmd.
    cat >"$WORK/trawl.toml" <<END
[host]
id = "bench"
colo = "bench"
[dpdk]
eal = ["--no-pci", "--in-memory"$(printf ', "%s"' "${memory[@]}")]
[[port]]
device = "net_pcap0,rx_pcap=$1,infinite_rx=1"
[cores]
workers = [$POLL]
writers = [$MAIN]
[blocks]
bytes_max = "$blocks"
[spool]
dir = "$WORK/spool"
bytes_max = "${SPOOL_GIB}GiB"
segment_bytes = "$segment"
rotate_seconds = 3600
pool_bytes = "$pool"
write = "$WRITE"
[store]
path = "$WORK/trawl.db"
[upload]
allow_file = true
[api]
listen = "127.0.0.1:$port"
[[account]]
id = "bench"
[[account.credential]]
token_sha256 = "$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)"
END
    "$TRAWL" serve --config "$WORK/trawl.toml" >"$log" 2>&1 &
    local server=$!
    pids+=("$server")
    python3 "$ROOT/scripts/bench-capture.py" "http://127.0.0.1:$port/client/v4/accounts/bench/pcaps" "$token" \
        "file://$WORK/bucket" "$measured" ${VERIFY:+--finish} || die "$(tail -n 20 "$log")"
    # The measured figures are out; without --verify nobody waits for the merge: the second signal ends at once.
    kill -TERM "$server" 2>/dev/null || true
    if [ -z "$VERIFY" ]; then
        sleep 0.3
        kill -TERM "$server" 2>/dev/null || true
        sleep 0.5
        kill -KILL "$server" 2>/dev/null || true
    fi
    wait "$server" 2>/dev/null || true
    [ -z "$VERIFY" ] || "$TRAWL" verify "$WORK"/bucket/pcap_*.json >&2
    rm -rf "$WORK/spool" "$WORK/bucket"
}

say "$RUNS runs of $SECONDS_EACH s each at: $SIZES"
results=$WORK/results.tsv
for size in $SIZES; do
    "$ROOT/scripts/make-frames.py" --size "$size" --count 2000 "$WORK/$size.pcap"
    for run in $(seq "$RUNS"); do
        for what in rxonly trawl tx_pcap; do
            # What an earlier run left in the page cache must not be written during this one.
            sync
            figures=$("bench_$what" "$WORK/$size.pcap")
            printf '%s\t%s\t%s\t%s\n' "$size" "$what" "$run" "$figures" | tee -a "$results" >&2
        done
    done
done

out=$ROOT/benches/results/$(date -u +%Y-%m-%dT%H%M%SZ).md
{
    echo "# trawl against dpdk-testpmd, $(date -u +%Y-%m-%d)"
    echo
    echo "Medians of $RUNS runs of $SECONDS_EACH s each; \`net_pcap\`, \`infinite_rx=1\`, 2000 frames; one polling core, one other core."
    echo "Sizes with FCS; Gbit/s of frame bytes without FCS. \`write = \"$WRITE\"\`, blocks $blocks, DPDK memory \`${memory[*]}\`."
    echo
    python3 "$ROOT/scripts/bench-table.py" "$results"
    echo
    echo "Machine: $(lscpu | sed -n 's/^Model name: *//p' | head -n 1), ${#cores[@]} cores;" \
        "$(awk '/^MemTotal:/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo); Linux $(uname -r);" \
        "DPDK $(pkg-config --modversion libdpdk); $(findmnt -no FSTYPE,SOURCE -T "$DIR" | tr -s ' ');" \
        "$(rustc --version | cut -d ' ' -f 1,2); commit $(git -C "$ROOT" rev-parse --short HEAD 2>/dev/null || echo unknown)."
    echo
    echo 'Command: `scripts/bench.sh'"$(printf ' --runs %s --seconds %s' "$RUNS" "$SECONDS_EACH")"'`'
} >"$out"
cat "$out"
say "kept as ${out#"$ROOT"/}"
