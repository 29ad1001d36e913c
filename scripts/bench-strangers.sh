#!/usr/bin/env bash
# Whether the time of an answer tells that an id exists in another account: one account asks, by turns at random, for ids that
# another account has and for ids that nobody has, on every route that takes an id. All answers must be 404.
#
#   scripts/bench-strangers.sh [--requests 4000]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

REQUESTS=4000
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "usage: see the head of $0"
    case $1 in
    --requests) REQUESTS=$2 ;;
    *) die "usage: see the head of $0" ;;
    esac
    shift 2
done

prepare_bench python3
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
"$ROOT/scripts/make-frames.py" --size 64 --count 2000 "$WORK/frames.pcap"
say "$REQUESTS requests for each kind of id and route"
python3 "$ROOT/scripts/bench-strangers.py" --trawl "$TRAWL" --work "$WORK" --memory="${memory[*]}" --worker "$POLL" \
    --writer "$MAIN" --requests "$REQUESTS" >"$WORK/table.md"

keep_result strangers "The time of ids that are another's" "\
Time of a 404 for an id that another account has against one for an id that nobody has, over one kept-alive connection, in random
order, $REQUESTS requests of each kind; medians, and the difference of the medians with its standard error (bootstrap)." \
    "scripts/bench-strangers.sh --requests $REQUESTS" <"$WORK/table.md"
