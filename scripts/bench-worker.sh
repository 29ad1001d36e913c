#!/usr/bin/env bash
# What each kind of work costs one worker, in turns of some milliseconds within one process: see benches/worker.rs. History,
# filters that take none, one or all frames, 64 captures that share them, snap lengths and sampling.
#
#   scripts/bench-worker.sh [--sizes "64 imix 1518"] [arguments of the bench]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

SIZES='64'
if [ "${1:-}" = --sizes ] && [ $# -ge 2 ]; then
    SIZES=$2
    shift 2
fi
TRAWL=none prepare_bench python3
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
"$ROOT/scripts/install-deps.sh" build
say "building (release)"
(cd "$ROOT" && cargo bench --locked --bench worker --no-run)
for size in $SIZES; do
    say "$size bytes"
    (cd "$ROOT" && cargo bench --locked --bench worker -- --size "$size" --eal="${memory[*]}" "$@") >>"$WORK/table.md"
    echo >>"$WORK/table.md"
done
keep_result worker "What each kind of work costs a worker" "\
Frames that one worker receives of \`net_pcap\`, \`infinite_rx=1\`, 2000 frames, while it is given one work after the other for some
milliseconds each, round after round; medians, and of the ratios to the first work in the same round also the quartiles. Blocks are
thrown away by the writer. The worker polls on core $POLL alone, everything else has core $MAIN." \
    "scripts/bench-worker.sh --sizes '$SIZES' $*" <"$WORK/table.md"
