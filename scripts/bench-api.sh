#!/usr/bin/env bash
# What the API costs the data plane: while one capture takes every frame of a net_pcap device at full rate, intervals without
# requests, with wrk on list and get, and with wrk on /metrics follow each other, RUNS times; ratios of neighbours in one run.
#
# The worker has the last core for itself. Everything else shares the first: writer, runtime, API and wrk too, so requests
# a second are a lower bound, and the writer has the least that it can get. Segments are discarded: the disk is not measured.
#
#   scripts/bench-api.sh [--runs 5] [--seconds 3] [--size imix] [--connections 16]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

RUNS=5 SECONDS_EACH=3 SIZE=imix CONNECTIONS=16
while [ $# -gt 0 ]; do
    case $1 in
    --runs) RUNS=$2 && shift 2 ;;
    --seconds) SECONDS_EACH=$2 && shift 2 ;;
    --size) SIZE=$2 && shift 2 ;;
    --connections) CONNECTIONS=$2 && shift 2 ;;
    *) die "usage: see the head of $0" ;;
    esac
done

"$ROOT/scripts/install-deps.sh" build
need_apt python3 util-linux wrk || die "packages are missing"
mapfile -t cores < <(cores_allowed)
[ "${#cores[@]}" -ge 2 ] || die "a benchmark needs two cores"
MAIN=${cores[0]} POLL=${cores[-1]}
memory=(-m 256)
if ! ensure_hugepages 512; then
    warn "no 512 free hugepages: figures are those of --no-huge and ordinary pages"
    memory+=(--no-huge)
fi
say "building (release)"
(cd "$ROOT" && cargo build --release --locked --bin trawl)

WORK=$(mktemp -d)
server=''
cleanup() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

"$ROOT/scripts/make-frames.py" --size "$SIZE" --count 2000 "$WORK/frames.pcap"
mkdir -m 700 "$WORK/spool" "$WORK/bucket"
api=127.0.0.1:$(free_port) observe=127.0.0.1:$(free_port)
token=bench-$RANDOM$RANDOM
cat >"$WORK/trawl.toml" <<END
[host]
id = "bench"
colo = "bench"
[dpdk]
eal = ["--no-pci", "--in-memory"$(printf ', "%s"' "${memory[@]}")]
[[port]]
device = "net_pcap0,rx_pcap=$WORK/frames.pcap,infinite_rx=1"
[cores]
workers = [$POLL]
writers = [$MAIN]
[blocks]
bytes_max = "256MiB"
[spool]
dir = "$WORK/spool"
bytes_max = "1GiB"
write = "discard"
[store]
path = "$WORK/trawl.db"
[capture]
simple_interval_seconds = 0
[upload]
allow_file = true
[api]
listen = "$api"
[observe]
listen = "$observe"
[[account]]
id = "bench"
[[account.credential]]
token_sha256 = "$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)"
END
"$TARGET_DIR/release/trawl" serve --config "$WORK/trawl.toml" >"$WORK/log" 2>&1 &
server=$!

say "$RUNS rounds of three intervals of $SECONDS_EACH s"
python3 "$ROOT/scripts/bench-api.py" "http://$api/client/v4/accounts/bench/pcaps" "http://$observe/metrics" "$token" \
    "file://$WORK/bucket" "$MAIN" "$RUNS" "$SECONDS_EACH" "$CONNECTIONS" >"$WORK/table.md" || die "$(tail -n 20 "$WORK/log")"

out=$ROOT/benches/results/$(date -u +%Y-%m-%dT%H%M%SZ)-api.md
{
    echo "# The API under load, $(date -u +%Y-%m-%d)"
    echo
    echo "One capture takes every frame ($SIZE, 2000 of them, \`net_pcap\`, \`infinite_rx=1\`) for the whole run; $RUNS rounds of one"
    echo "interval of $SECONDS_EACH s each, in turn. \`wrk -t1 -c$CONNECTIONS\` on list (20 captures and more) and get by turns, \`-c1\` on /metrics."
    echo "The worker polls on a core of its own; writer, runtime, API and wrk share one other core. \`write = \"discard\"\`: every"
    echo "frame is matched and copied into blocks, which the writer takes and gives back; there is no disk in this."
    echo
    cat "$WORK/table.md"
    echo
    echo "Machine: $(lscpu | sed -n 's/^Model name: *//p' | head -n 1), ${#cores[@]} cores;" \
        "$(awk '/^MemTotal:/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo); Linux $(uname -r);" \
        "DPDK $(pkg-config --modversion libdpdk), memory \`${memory[*]}\`; $(rustc --version | cut -d ' ' -f 1,2);" \
        "commit $(git -C "$ROOT" rev-parse --short HEAD 2>/dev/null || echo unknown)."
    echo
    echo "Command: \`scripts/bench-api.sh --runs $RUNS --seconds $SECONDS_EACH --size $SIZE --connections $CONNECTIONS\`"
} >"$out"
cat "$out"
say "kept as ${out#"$ROOT"/}"
