#!/usr/bin/env bash
# What the history's sampler costs a worker: servers with and without `[history]` (its defaults: 1 in 1000) take turns, RUNS
# times, on a net_pcap device that always has frames; ratios are of neighbours in one run.
#
#   nothing    no capture: the worker receives and counts, which is the least that it can do and so the most that 1 % can be
#   one filter a capture whose filter takes none of the frames: the worker parses and matches each
#
# History goes to the spool, on the disk under DIR (default: a temporary folder).
#
#   scripts/bench-history.sh [--runs 7] [--seconds 3] [--sizes "64 imix"] [--dir DIR]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

RUNS=7 SECONDS_EACH=3 SIZES='64 imix' DIR=${TMPDIR:-/tmp}
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "usage: see the head of $0"
    case $1 in
    --runs) RUNS=$2 ;;
    --seconds) SECONDS_EACH=$2 ;;
    --sizes) SIZES=$2 ;;
    --dir) DIR=$2 ;;
    *) die "usage: see the head of $0" ;;
    esac
    shift 2
done

prepare_bench python3
WORK=$(mktemp -d -p "$DIR")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
for size in $SIZES; do "$ROOT/scripts/make-frames.py" --size "$size" --count 2000 "$WORK/$size.pcap"; done

say "$RUNS rounds at: $SIZES"
python3 "$ROOT/scripts/bench-history.py" --trawl "$TRAWL" --work "$WORK" --memory="${memory[*]}" --worker "$POLL" \
    --writer "$MAIN" --runs "$RUNS" --seconds "$SECONDS_EACH" --sizes "$SIZES" >"$WORK/table.md"

keep_result history "The history's sampler" "\
What one worker receives of \`net_pcap\`, \`infinite_rx=1\`, 2000 frames, with \`[history]\` at its defaults (1 in 1000) and without it; $RUNS
rounds, in each one server without and one with it, measured for $SECONDS_EACH s each; medians, and of the ratios with / without in a
round also the least and the largest. The worker polls on core $POLL alone, everything else has core $MAIN." \
    "scripts/bench-history.sh --runs $RUNS --seconds $SECONDS_EACH --sizes '$SIZES'" <"$WORK/table.md"
