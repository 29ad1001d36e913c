#!/usr/bin/env bash
# Soak: frames at a steady rate for some minutes while captures start and end all the time (one of 30 s, two of 1 s, each begun
# anew as soon as it is delivered), to a bucket that is a folder. Nothing may be lost, and neither memory, descriptors,
# threads nor the spool may grow: medians of the first and of the last third, after a fifth of the time. Prints what it
# reads, and keeps the result under benches/results/. Exits with 1 on a loss or on growth, and with 3, after it has said where each
# process and thread stood, if something hangs.
#
#   scripts/soak.sh [--minutes 10] [--rate 50000] [--size imix] [--ring 4096] [--loss 0] [--interval 10] [--dir DIR]
#
# The sender is that of loadtest.sh, whose table says which --rate this host takes without loss: stay below it. --loss is the
# share of frames that may find the ring full, on hosts whose hypervisor takes the core for longer than the ring lasts; what
# trawl itself loses is never tolerated: each frame is written six times, to the spool and the bucket by three captures, and 512 MiB
# of blocks ride out a disk that stands still for a while. Needs root and hugepages.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

MINUTES=10 RATE=50000 SIZE=imix RING=4096 LOSS=0 INTERVAL=10 DIR=$TARGET_DIR/soak
COMMAND="scripts/soak.sh $*"
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "usage: see the head of $0"
    case $1 in
    --minutes) MINUTES=$2 ;;
    --rate) RATE=$2 ;;
    --size) SIZE=$2 ;;
    --ring) RING=$2 ;;
    --loss) LOSS=$2 ;;
    --interval) INTERVAL=$2 ;;
    --dir) DIR=$2 ;;
    *) die "usage: see the head of $0" ;;
    esac
    shift 2
done
prepare_load
mkdir -p "$DIR"
WORK=$(mktemp -d "$DIR/run.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
build_pacer "$WORK/pace.so"
status=0
python3 "$ROOT/scripts/soak.py" --work "$WORK" --trawl "$TRAWL" --eal="$eal" --worker "$worker" --writers "$writers" \
    --blocks 512MiB --spool-bytes 4GiB --size "$SIZE" --rate "$RATE" --minutes "$MINUTES" --interval "$INTERVAL" \
    --ring "$RING" --loss "$LOSS" --pacer "$WORK/pace.so" --generator-cores="$sender" \
    --generator-memory="$generator_memory" >"$WORK/found.md" || status=$?
# Nothing was found if it ended early.
[ -s "$WORK/found.md" ] || exit "$status"
verdict='No drop, no growth.'
[ "$status" = 0 ] || verdict='**Failed: see the figures.**'
keep_result soak "captures that start and end all the time, for $MINUTES minutes" \
    "$verdict Captures of everything, one of 30 s and two of 1 s at a time; medians of samples each $INTERVAL s after a fifth of the time; ring of
$RING frames; worker on core $worker, writers and everything else on $writers, sender on $sender; spool and bucket on
$(findmnt -no FSTYPE,SOURCE -T "$DIR" | head -n 1 | tr -s ' ')." "$COMMAND" <"$WORK/found.md"
exit "$status"
