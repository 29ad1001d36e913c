#!/usr/bin/env bash
# Merges the same files with `trawl merge` and `mergecap`, turn by turn, and prints medians and the most memory that each took.
# The result goes to benches/results/. Needs mergecap, GNU time, python3 and a release build.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    cat <<'USAGE'
usage: scripts/bench-merge.sh [--runs N] [--dir DIR] [--mib N]
  --runs N   turns of each (default 5)
  --dir DIR  where inputs and outputs are made (default /dev/shm)
  --mib N    size of each of the 8 large files (default 256)
USAGE
}

RUNS=5 WHERE=/dev/shm MIB=256
while [ $# -gt 0 ]; do
    case $1 in
    --runs) RUNS=$2 ;;
    --dir) WHERE=$2 ;;
    --mib) MIB=$2 ;;
    --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
    shift 2
done
TRAWL=$TARGET_DIR/release/trawl
[ -x "$TRAWL" ] || die "no $TRAWL; run: cargo build --release"
have mergecap || die "mergecap is missing; scripts/install-deps.sh installs it"
[ -x /usr/bin/time ] || die "GNU time is missing; as root: apt-get install time"
DIR=$(mktemp -d "$WHERE/trawl-bench-merge.XXXXXX")
trap 'rm -rf "$DIR"' EXIT

# `make_files COUNT BYTES`: frames of 300 bytes, their times interleaved over the files.
make_files() {
    python3 - "$DIR" "$1" "$2" <<'PYTHON'
import struct, sys

folder, files, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for file in range(files):
    with open(f"{folder}/in{file:02}.pcap", "wb") as out:
        out.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        frame = bytes(300)
        chunk = []
        for number in range(size // 316):
            seconds, ns = divmod(number * 1000 + file * 37, 1_000_000_000)
            chunk.append(struct.pack("<IIII", 1_700_000_000 + seconds, ns, 300, 300) + frame)
            if len(chunk) == 10_000:
                out.write(b"".join(chunk))
                chunk.clear()
        out.write(b"".join(chunk))
PYTHON
}

# `once COMMAND...`: its seconds and its largest resident set in KiB.
once() {
    rm -f "$DIR"/out*
    /usr/bin/time -f '%e %M' -o "$DIR/figures" "$@" >/dev/null 2>&1 || die "failed: $*"
    cat "$DIR/figures"
}

# `turns LABEL`: all programs on the files that are there, turn by turn.
turns() {
    local run format classic ours theirs inputs=("$DIR"/in*.pcap)
    for run in $(seq "$RUNS"); do
        note "$1, run $run"
        for format in pcap pcapng; do
            classic=$format
            [ "$format" = pcapng ] || classic=nsecpcap
            ours=$(once "$TRAWL" merge -o "$DIR/out.$format" "${inputs[@]}")
            theirs=$(once mergecap -F "$classic" -w "$DIR/out.$format" "${inputs[@]}")
            printf '%s\t%s\t%s\n' "$1" "trawl, $format" "$ours" "$1" "mergecap, $format" "$theirs" >>"$DIR/runs"
        done
    done
    rm -f "$DIR"/in*.pcap
}

say "making 8 files of $MIB MiB"
make_files 8 $((MIB << 20))
turns "8 files of $MIB MiB"
say "making 64 files of 4 MiB"
make_files 64 $((4 << 20))
turns "64 files of 4 MiB"

RESULT=$ROOT/benches/results/$(date -u +%Y-%m-%dT%H%M%SZ)-merge.md
{
    printf '# trawl merge against mergecap, %s\n\n' "$(date -u +%F)"
    printf 'Medians of %s runs, turn by turn, on %s; frames of 300 bytes.\n\n' "$RUNS" "$(stat -f -c %T "$WHERE")"
    python3 - "$DIR/runs" <<'PYTHON'
import statistics, sys
from collections import defaultdict

runs = defaultdict(list)
for line in open(sys.argv[1], encoding="ascii"):
    what, program, figures = line.rstrip("\n").split("\t")
    runs[what, program].append([float(figure) for figure in figures.split()])
print("| inputs | output | trawl s | mergecap s | mergecap / trawl | trawl peak MiB | mergecap peak MiB |")
print("|---|---|---|---|---|---|---|")
for what in dict.fromkeys(key[0] for key in runs):
    for output in ("pcap", "pcapng"):
        ours, theirs = ([statistics.median(run[column] for run in runs[what, f"{name}, {output}"])
                         for column in (0, 1)] for name in ("trawl", "mergecap"))
        print(f"| {what} | {output} | {ours[0]:.2f} | {theirs[0]:.2f} | {theirs[0] / ours[0]:.1f} "
              f"| {ours[1] / 1024:.0f} | {theirs[1] / 1024:.0f} |")
PYTHON
    printf '\nMachine: %s, %s cores; Linux %s; %s; commit %s.\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" \
        "$(nproc)" "$(uname -r)" "$(mergecap --version 2>/dev/null | sed -n '1s/\.$//p')" "$(git -C "$ROOT" rev-parse --short HEAD)"
    printf '\nCommand: scripts/bench-merge.sh --runs %s --mib %s\n' "$RUNS" "$MIB"
} | tee "$RESULT"
