#!/usr/bin/env bash
# What the API costs the data plane: while one capture takes every frame of a net_pcap device at full rate, intervals under
# different loads follow each other, RUNS times; ratios are of neighbours in one run.
#
#   none          nothing asks; twice a round, so that the noise of the run can be seen
#   burner        two processes that only burn CPU where wrk runs: what any work on that core costs
#   healthz       wrk on /healthz: the same runtime, as many requests as it takes, and no capture is looked at
#   list and get  wrk on the list and on the running capture, by turns
#   metrics       wrk on /metrics, one connection
#
# The worker has the last core for itself. With two cores, wrk shares the other one with writer, runtime and API, so requests a
# second are a lower bound, and the writer has the least that it can get; with three and more, wrk has one of its own.
# Segments are discarded: the disk is not measured.
#
#   scripts/bench-api.sh [--runs 5] [--seconds 3] [--size imix] [--connections 16]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

RUNS=5 SECONDS_EACH=3 SIZE=imix CONNECTIONS=16
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "usage: see the head of $0"
    case $1 in
    --runs) RUNS=$2 ;;
    --seconds) SECONDS_EACH=$2 ;;
    --size) SIZE=$2 ;;
    --connections) CONNECTIONS=$2 ;;
    *) die "usage: see the head of $0" ;;
    esac
    shift 2
done

prepare_bench python3 wrk
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
loader=$MAIN
[ "${#cores[@]}" -eq 2 ] || loader=${cores[1]}

say "$RUNS rounds of six intervals of $SECONDS_EACH s"
"$ROOT/scripts/make-frames.py" --size "$SIZE" --count 2000 "$WORK/frames.pcap"
python3 "$ROOT/scripts/bench-api.py" --trawl "$TRAWL" --work "$WORK" --memory="${memory[*]}" --worker "$POLL" --writer "$MAIN" \
    --loader "$loader" --runs "$RUNS" --seconds "$SECONDS_EACH" --connections "$CONNECTIONS" >"$WORK/table.md"

keep_result api "The API under load" "\
One capture takes every frame ($SIZE, 2000 of them, \`net_pcap\`, \`infinite_rx=1\`) for the whole run; $RUNS rounds of one interval of
$SECONDS_EACH s each, in turn; medians, and of the ratios to the same round's mean without load also the least and the largest. The worker
polls on core $POLL alone; writer, runtime and API have core $MAIN, wrk and the burners core $loader. \`write = \"discard\"\`: every frame is matched
and copied into blocks, which the writer takes and gives back; there is no disk in this. Every reading's ledger added up." \
    "scripts/bench-api.sh --runs $RUNS --seconds $SECONDS_EACH --size $SIZE --connections $CONNECTIONS" <"$WORK/table.md"
