#!/usr/bin/env bash
# Measures every stage of a capture host on its own, interleaved in one run, on this machine and one file system:
#   rxonly    what dpdk-testpmd receives and throws away: the source's own limit (net_pcap, infinite_rx, 2000 frames)
#   memory    trawl into blocks that the writer throws away (spool.write = "discard"): port, worker and rings without a disk
#   noring    memory without the rings: the worker uses its full blocks again itself (spool.write = "discard-in-worker")
#   direct    trawl to disk with O_DIRECT through io_uring
#   mapped    trawl to disk through mapped segments that are used again
#   tx_pcap   what dpdk-testpmd writes when it forwards into a net_pcap file (through the page cache)
#   fio       the file system alone: fio, sequential writes of 1 MiB, eight in flight, O_DIRECT (plain on a tmpfs)
#   noport    memory with a port that makes frames without copying them (net_null; not for imix): worker and rings alone
#   filter1   memory with one capture whose filter takes all
#   reject64  memory with 64 captures that all reject        split64  memory with 64 captures that take a 64th each
#   snap160   160 bytes of every frame                       sample10  160 bytes of one frame in ten
# Every trawl run ends with its ledgers checked, and where files were written, a segment counted by capinfos against them.
#
#   scripts/bench.sh [--runs 3] [--seconds 2] [--sizes "64 imix 1518 9018"] [--stages "rxonly memory …"] [--dir DIR]
#                    [--results FILE] [--no-table]
#
# FILE (JSON lines) is appended to, so that a long table can be measured piece by piece: --no-table for all pieces but the
# last. DIR (default: benches/results/raw) decides which file system is measured. Needs root and hugepages for figures worth
# keeping. The table is kept under benches/results/.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

RUNS=3 SECONDS_EACH=2 SIZES='64 imix 1518 9018' DIR=$ROOT/benches/results/raw RESULTS='' TABLE=yes
STAGES='rxonly memory noring noport direct mapped tx_pcap fio filter1 reject64 split64 snap160 sample10'
COMMAND="scripts/bench.sh $*"
while [ $# -gt 0 ]; do
    case $1 in
    --runs) RUNS=$2 && shift 2 ;;
    --seconds) SECONDS_EACH=$2 && shift 2 ;;
    --sizes) SIZES=$2 && shift 2 ;;
    --stages) STAGES=$2 && shift 2 ;;
    --dir) DIR=$2 && shift 2 ;;
    --results) RESULTS=$2 && shift 2 ;;
    --no-table) TABLE='' && shift ;;
    *) die "usage: see the head of $0" ;;
    esac
done

prepare_bench dpdk python3 fio tshark

mkdir -p "$DIR"
WORK=$(mktemp -d "$DIR/run.XXXXXX")
RESULTS=${RESULTS:-$WORK/results.jsonl}
SPOOL_GIB=$(($(df --output=avail -B1G "$WORK" | tail -n 1) / 2))
FILE_SYSTEM=$(stat -f -c %T "$WORK")
# A file system in memory takes part of what the machine has.
[ "$FILE_SYSTEM" != tmpfs ] || SPOOL_GIB=$(($(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo) * 2 / 3))
[ "$SPOOL_GIB" -ge 4 ] || die "$DIR has too little free space: 8 GiB are needed, --dir names another place"
cleanup() {
    local pid
    # By file: servers are started in the subshell that catches the figures.
    while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done < <(cat "$WORK/server" 2>/dev/null)
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# testpmd says each second what it received; the first two figures cover its start.
steady() {
    awk -v pps="$1-pps:" -v bps="$1-bps:" '
        { for (i = 1; i < NF; i++) { if ($i == pps) p = $(i + 1); if ($i == bps) { n++; if (n > 2) { ps += p; bs += $(i + 1); m++ } } } }
        END { if (!m) exit 1; printf "{\"pps\": %.0f, \"bps\": %.0f}\n", ps / m, bs / m }' "$WORK/testpmd.log"
}

# `testpmd MODE DEVICE`: runs it for the wanted seconds after a start of about two.
testpmd() {
    local log=$WORK/testpmd.log status=0 buffers=(--total-num-mbufs=16384)
    # net_pcap's infinite_rx knows no chains of buffers.
    [ "$SIZE" != 9018 ] || buffers=(--total-num-mbufs=8192 --mbuf-size=9472 --max-pkt-len=9018)
    timeout -s TERM -k 10 $((SECONDS_EACH + 3)) dpdk-testpmd -l "$MAIN,$POLL" --no-pci --in-memory "${memory[@]}" \
        --log-level=error --vdev "$2" -- --forward-mode="$1" --auto-start --stats-period=1 \
        "${buffers[@]}" --no-flush-rx </dev/null >"$log" 2>&1 || status=$?
    grep -q 'Accumulated forward statistics' "$log" || die "testpmd ended with $status: $(tail -n 5 "$log")"
}

bench_rxonly() {
    testpmd rxonly "net_pcap0,rx_pcap=$FRAMES,infinite_rx=1"
    steady Rx || die "testpmd said too little: --seconds 2 at least"
}

bench_tx_pcap() {
    testpmd io "net_pcap0,rx_pcap=$FRAMES,tx_pcap=$WORK/tx.pcap,infinite_rx=1"
    rm -f "$WORK/tx.pcap"
    steady Tx || die "testpmd said too little: --seconds 2 at least"
}

bench_fio() {
    local direct=1
    [ "$FILE_SYSTEM" != tmpfs ] || direct=0
    fio --name=write --filename="$WORK/fio" --rw=write --bs=1M --size=2G --direct="$direct" --ioengine=io_uring --iodepth=8 \
        --runtime=$((SECONDS_EACH + 1)) --time_based --cpus_allowed="$MAIN" --output-format=json |
        python3 -c 'import json, sys; print(json.dumps({"bytes_s": json.load(sys.stdin)["jobs"][0]["write"]["bw_bytes"]}))'
    rm -f "$WORK/fio"
}

# `bench_trawl WRITE CAPTURES`: CAPTURES is what bench-capture.py starts.
bench_trawl() {
    local port token log=$WORK/trawl.log seconds=$SECONDS_EACH
    port=$(free_port)
    token=bench-$RANDOM$RANDOM
    rm -rf "$WORK/spool" "$WORK/bucket" "$WORK/trawl.db"
    mkdir -m 700 "$WORK/spool" "$WORK/bucket"
    # One segment that is larger than the run: merging starts after the measured time, so that the disk is written once, as by
    # testpmd. A mapped one is there before, as on a host that has run for a while; it is full in one second.
    local segment=$SPOOL_GIB pool=0 history=false sample=10
    if [ "$1" = mapped ]; then
        [ "$segment" -le 9 ] || segment=9
        [ "$FILE_SYSTEM" = tmpfs ] || [ "$segment" -le 4 ] || segment=4
        pool=$segment seconds=0.4
    fi
    local device=net_pcap0,rx_pcap=$FRAMES,infinite_rx=1
    [ "$2" != noport ] || device=net_null0,size=$((SIZE - 4))
    case $2 in snap160) history=true sample=1 ;; sample10) history=true ;; esac
    cat >"$WORK/trawl.toml" <<END
[host]
id = "bench"
colo = "bench"
[dpdk]
eal = ["--no-pci", "--in-memory"$(printf ', "%s"' "${memory[@]}")]
[[port]]
device = "$device"
[cores]
workers = [$POLL]
writers = [$MAIN]
[spool]
dir = "$WORK/spool"
bytes_max = "${SPOOL_GIB}GiB"
segment_bytes = "${segment}GiB"
rotate_seconds = 3600
pool_bytes = "${pool}GiB"
write = "$1"
[store]
path = "$WORK/trawl.db"
[capture]
full_per_account = 64
[history]
enabled = $history
sample = $sample
bytes_max = "${SPOOL_GIB}GiB"
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
    echo "$server" >"$WORK/server"
    # It ends the server: the measured figures are out, and nobody waits for the merge.
    python3 "$ROOT/scripts/bench-capture.py" --url "http://127.0.0.1:$port/client/v4/accounts/bench/pcaps" --token "$token" \
        --destination "file://$WORK/bucket" --seconds "$seconds" --captures "$2" --server "$server" --spool "$WORK/spool" ||
        die "$(tail -n 20 "$log")"
    wait "$server" 2>/dev/null || true
    rm -rf "$WORK/spool" "$WORK/bucket" "$WORK/server"
}

bench() {
    case $1 in
    rxonly | tx_pcap | fio) "bench_$1" ;;
    memory) bench_trawl discard all ;;
    noring) bench_trawl discard-in-worker all ;;
    direct | mapped) bench_trawl "$1" all ;;
    *) bench_trawl discard "$1" ;;
    esac
}

say "$RUNS runs of $SECONDS_EACH s each at: $SIZES"
for SIZE in $SIZES; do
    FRAMES=$WORK/$SIZE.pcap
    "$ROOT/scripts/make-frames.py" --size "$SIZE" --count 2000 "$FRAMES"
    for run in $(seq "$RUNS"); do
        for stage in $STAGES; do
            [ "$stage $SIZE" != 'noport imix' ] || continue
            # What an earlier run left in the page cache must not be written during this one.
            sync "$WORK"
            figures=$(bench "$stage")
            printf '{"file_system": "%s", "size": "%s", "stage": "%s", "run": %s, "figures": %s}\n' \
                "$FILE_SYSTEM" "$SIZE" "$stage" "$run" "$figures" | tee -a "$RESULTS" >&2
        done
    done
done
[ -n "$TABLE" ] || exit 0

out=$ROOT/benches/results/$(date -u +%Y-%m-%dT%H%M%SZ)-stages.md
{
    echo "# trawl's stages against dpdk-testpmd and fio, $(date -u +%Y-%m-%d)"
    echo
    echo "Medians (smallest–largest) of runs that alternate; \`net_pcap\`, \`infinite_rx=1\`, 2000 frames; one polling core, one other"
    echo "core; sizes with FCS; DPDK memory \`${memory[*]}\`."
    echo
    python3 "$ROOT/scripts/bench-table.py" "$RESULTS"
    echo
    echo "Machine: $(lscpu | sed -n 's/^Model name: *//p' | head -n 1), ${#cores[@]} cores;" \
        "$(awk '/^MemTotal:/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo); Linux $(uname -r);" \
        "DPDK $(pkg-config --modversion libdpdk); $(findmnt -no FSTYPE,SOURCE -T "$DIR" | head -n 1 | tr -s ' ');" \
        "$(rustc --version | cut -d ' ' -f 1,2); commit $(git -C "$ROOT" rev-parse --short HEAD 2>/dev/null || echo unknown)."
    echo
    echo "Last command: \`$COMMAND\`"
} >"$out"
cat "$out"
say "kept as ${out#"$ROOT"/}"
