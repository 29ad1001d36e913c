#!/usr/bin/env bash
# Load test in the fashion of RFC 2544, section 26.1: a separate sender offers frames at rates that a binary search chooses, and
# the highest rate without a lost frame is found for each frame size. Then more than that is offered, and the ledger must
# balance to the packet: what the sender says it offered is what is in the files plus every counted drop.
# Keeps one Markdown table under benches/results/. Exits with 1 if a ledger does not balance, and with 3, after it has said where
# each process and thread stood, if something hangs.
#
#   scripts/loadtest.sh [--seconds 5] [--sizes "64 512 imix 1518 9018"] [--loss 0] [--ring 1024] [--dir DIR]
#                       [--results FILE] [--no-table]
#       dpdk-testpmd (txonly, net_vhost) against trawl on net_virtio_user, both on this host. testpmd has no rate for
#       net_vhost, so scripts/pace.c, loaded into it by EAL's -d, holds each burst back until its time has come.
#   scripts/loadtest.sh --pktgen [...]
#       The same with Pktgen-DPDK, where `pktgen` is installed; it paces itself, and sends no mix of sizes.
#   scripts/loadtest.sh --port PCI --generator COMMAND [...]
#       A real port of this host, bound to vfio-pci (scripts/setup-host.sh), and a generator on the other end of its cable.
#       `COMMAND SIZE RATE SECONDS` must send frames of SIZE bytes (with FCS; imix is 7:4:1 of 64, 594, 1518) at RATE a second
#       (0: as fast as it can) for that long, and print how many it sent. Nothing else may come in on that port.
#
# FILE (JSON lines, one for each size) is appended to, so that the table can be measured size by size: --no-table for all but the
# last. --loss is the share that may be lost in a trial that passes; RFC 2544 wants 0. --ring is how many frames wait in the port
# while its worker is away: where a hypervisor takes the core for milliseconds, that decides at which rate the first is lost. DIR (default: under the build folder) holds
# spool and bucket, so its disk is a part of what is measured. With fewer than four cores the sender, the writers and the merge
# share one: the sender's own limit is then lower, and the table says `≥` where it was the limit. Needs root and hugepages.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

SECONDS_EACH=5 SIZES='64 512 imix 1518 9018' LOSS=0 RING=1024 DIR=$TARGET_DIR/loadtest PORT='' GENERATOR='' PKTGEN=''
RESULTS='' TABLE=yes COMMAND="scripts/loadtest.sh $*"
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) SECONDS_EACH=$2 && shift 2 ;;
    --sizes) SIZES=$2 && shift 2 ;;
    --loss) LOSS=$2 && shift 2 ;;
    --ring) RING=$2 && shift 2 ;;
    --dir) DIR=$2 && shift 2 ;;
    --port) PORT=$2 && shift 2 ;;
    --generator) GENERATOR=$2 && shift 2 ;;
    --pktgen) PKTGEN=yes && shift ;;
    --results) RESULTS=$2 && shift 2 ;;
    --no-table) TABLE='' && shift ;;
    *) die "usage: see the head of $0" ;;
    esac
done
for size in $SIZES; do
    [[ $size = imix || ($size =~ ^[0-9]+$ && $size -ge 64 && $size -le 9018) ]] ||
        die "--sizes: $size is neither imix nor 64 to 9018"
done
if [ -n "$PORT" ] && [ -z "$GENERATOR" ]; then
    die "--port needs --generator COMMAND: something on the other end of the cable that sends what it is told and says how
       many frames it sent; the head of $0 says how it is called. Bind the port first: scripts/setup-host.sh --port $PORT"
fi
[ -z "$GENERATOR" ] || [ -n "$PORT" ] || die "--generator sends to a real port: name it with --port"
if [ -n "$PKTGEN" ]; then
    have pktgen || die "pktgen (Pktgen-DPDK) is not in PATH: https://pktgen-dpdk.readthedocs.io says how to build it;
       without --pktgen this test uses dpdk-testpmd"
    SIZES=${SIZES//imix/}
fi

prepare_load
if [ -n "$PORT" ]; then
    sender='' eal='--in-memory'
    [[ $PORT != net_* ]] || eal='--no-pci --in-memory -m 256'
fi

mkdir -p "$DIR"
WORK=$(mktemp -d "$DIR/run.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
pacer=$WORK/pace.so
[ -n "$PORT$PKTGEN" ] || build_pacer "$pacer"
# A trial stands in the spool and in the bucket.
spool=$(($(df --output=avail -B1G "$WORK" | tail -n 1) * 2 / 5))
[ "$spool" -ge 2 ] || die "$DIR has less than 5 GiB free: --dir names another place"

status=0
python3 "$ROOT/scripts/loadtest.py" --work "$WORK" --trawl "$TRAWL" --eal="$eal" --worker "$worker" \
    --writers "$writers" --blocks 256MiB --spool-bytes "${spool}GiB" --sizes "$SIZES" --seconds "$SECONDS_EACH" \
    --loss "$LOSS" --ring "$RING" --port "$PORT" --generator "$GENERATOR" --pacer "$pacer" --generator-cores="$sender" \
    --generator-memory="$generator_memory" ${PKTGEN:+--pktgen} --results "${RESULTS:=$WORK/results.jsonl}" || status=$?
[ "$status" -le 1 ] && [ -n "$TABLE" ] || exit "$status"

source_of_frames="\`dpdk-testpmd\` txonly on \`net_vhost\`, paced by scripts/pace.c"
[ -z "$PKTGEN" ] || source_of_frames="Pktgen-DPDK on \`net_vhost\`"
[ -z "$PORT" ] || source_of_frames="\`$GENERATOR\`, into port $PORT"
keep_result loadtest "the no-drop rate of a capture of everything, and the ledger beyond it" \
    "RFC 2544's search, tolerated loss $LOSS; sizes with FCS, Gbit/s of frame bytes without it. Sender: $source_of_frames,
on ${sender:-another host}; worker on core $worker, writers and everything else on $writers; spool and bucket on
$(findmnt -no FSTYPE,SOURCE -T "$DIR" | head -n 1 | tr -s ' '). A hypervisor that keeps the worker's core for longer than the ring lasts costs frames at any rate." \
    "$COMMAND" < <(python3 "$ROOT/scripts/loadtest-table.py" "$RESULTS")
exit "$status"
