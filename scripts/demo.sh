#!/usr/bin/env bash
# Shows trawl at work: frames of real programs go through a DPDK port, a filter, the spool and the merge into files.
# Needs no account, cloud, NIC or hugepages. `--live` (root): the programs themselves talk over a veth pair.
# `--ui`: starts the host, says how to log in to its dashboard, and runs until Ctrl-C.
# Everything is in one temporary folder, which is removed at the end; --keep keeps it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

live='' keep='' ui=''
for argument in "$@"; do
    case $argument in
    --live) live=yes ;;
    --keep) keep=yes ;;
    --ui) ui=yes ;;
    *) die "usage: $0 [--live] [--ui] [--keep]" ;;
    esac
done

"$ROOT/scripts/install-deps.sh" demo
[ -z "$live" ] || [ -z "$ui" ] || die "--live and --ui exclude each other: a browser does not see the namespace that --live listens in"
if [ -n "$live" ] && ! netns_possible; then
    die "--live makes network namespaces, which needs root; without it the demo replays recorded frames"
fi

WORK=$(mktemp -d "${TMPDIR:-/tmp}/trawl-demo.XXXXXX")
TRAWL=$TARGET_DIR/release/trawl
CLIENT=trawl-demo-c-$$ SERVER=trawl-demo-s-$$
inside=() # the words before a command that must see the port's network
pids=()

cleanup() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ -n "$live" ]; then
        ip netns del "$CLIENT" 2>/dev/null || true
        ip netns del "$SERVER" 2>/dev/null || true
    fi
    if [ -n "$keep" ]; then note "everything is in $WORK"; else rm -rf "$WORK"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say "building (release; minutes the first time)"
(cd "$ROOT" && cargo build --release --locked --bin trawl)

lay_wire() {
    ip netns add "$CLIENT"
    ip netns add "$SERVER"
    ip link add wire0 netns "$CLIENT" type veth peer name wire0 netns "$SERVER"
    local ns host=1
    for ns in "$SERVER" "$CLIENT"; do
        # Frames as a NIC would send them, and as they came.
        ip netns exec "$ns" ethtool -K wire0 tx off gro off >/dev/null
        ip -n "$ns" addr add "192.0.2.$host/24" dev wire0
        ip -n "$ns" addr add "2001:db8::$host/64" dev wire0 nodad
        ip -n "$ns" link set lo up
        ip -n "$ns" link set wire0 up
        host=2
    done
    inside=(ip netns exec "$SERVER")
    ip netns exec "$SERVER" python3 -m http.server --directory "$ROOT/tests/data" --bind :: 80 >"$WORK/http.log" 2>&1 &
    pids+=($!)
}

# The programs, over and over until the demo ends.
talk() {
    while :; do
        ip netns exec "$CLIENT" curl -sS -o /dev/null --max-time 2 http://192.0.2.1/real.pcap || sleep 0.2
        ip netns exec "$CLIENT" curl -sS -o /dev/null --max-time 2 'http://[2001:db8::1]/README.md' || sleep 0.2
        ip netns exec "$CLIENT" ping -q -c 2 -i 0.2 2001:db8::1 >/dev/null || sleep 0.2
    done
}

hash() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
random() { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# config/demo.toml with this run's folder, cores, token and port instead of its own.
write_config() {
    local cores worker writer eal='"--no-pci", "--in-memory", "-m", "128"' device
    mapfile -t cores < <(cores_allowed)
    [ "${#cores[@]}" -ge 2 ] || die "the demo needs two cores: one polls, one writes"
    worker=${cores[-1]} writer=${cores[0]}
    if hugepages_usable 160; then
        note "DPDK's memory and the blocks are on hugepages"
    else
        eal+=', "--no-huge"'
        note "no free hugepages for this user: DPDK runs with --no-huge, which works and is slower"
    fi
    device="net_pcap0,rx_pcap=$ROOT/tests/data/real.pcap,infinite_rx=1"
    [ -z "$live" ] || device="interface:wire0"
    sed -e "s|^eal *=.*|eal = [$eal]|" \
        -e "s|^device *=.*|device = \"$device\"|" \
        -e "s|^workers *=.*|workers = [$worker]|" -e "s|^writers *=.*|writers = [$writer]|" \
        -e "s|/tmp/trawl-demo|$WORK|g" \
        -e "s|^token_sha256 *=.*|token_sha256 = \"$(hash "$TRAWL_TOKEN")\"|" \
        "$ROOT/config/demo.toml" >"$WORK/trawl.toml"
    printf '\n[api]\nlisten = "127.0.0.1:%s"\n' "$port" >>"$WORK/trawl.toml"
    [ -z "$ui" ] || ui_config >>"$WORK/trawl.toml"
    chmod 640 "$WORK/trawl.toml"
}

# What --ui adds. The port plays as fast as a core can take it, far more than a disk does: so a full capture ends with its byte limit,
# after a second or so, and not with a full spool. The history makes look backs and estimates possible.
ui_config() {
    cat <<END

[[operator]]
token_sha256 = "$(hash "$OPERATOR_TOKEN")"
[capture]
byte_limit_max = "256MiB"
captures_max = 32
simple_interval_seconds = 5
[history]
enabled = true
bytes_max = "256MiB"
segment_seconds = 5
END
}

trawl() { "${inside[@]}" "$TRAWL" "$@"; }
answers() { trawl capture list; }

# `capture NAME WORDS OPTIONS...`: one capture from start to end, and what came of it.
capture() {
    local name=$1 words=$2 manifest
    shift 2
    say "$words"
    note "trawl capture start --wait --colo-name demo --destination-conf file://$WORK/$name $*"
    mkdir -m 700 "$WORK/$name"
    trawl capture start --wait --colo-name demo --destination-conf "file://$WORK/$name" "$@"
    manifest=$(echo "$WORK/$name"/pcap_*.json)
    [ -f "$manifest" ] || die "the capture left no manifest; the server's log: $(tail -n 20 "$WORK/trawl.log")"
    say "what is in the bucket"
    ls -l "$WORK/$name"
    trawl verify "$manifest"
    say "in words"
    explain "$manifest"
    say "the first packets of $(basename "$(first_object "$manifest")"), as tshark reads them"
    # tshark goes on reading after head has left; that is no failure.
    tshark -n -r "$(first_object "$manifest")" -c 6 2>/dev/null || tcpdump -nn -r "$(first_object "$manifest")" -c 6
}

first_object() {
    python3 -c 'import json, os, sys
path = sys.argv[1]
print(os.path.join(os.path.dirname(path), json.load(open(path))["objects"][0]["name"]))' "$1"
}

explain() {
    python3 - "$1" <<'END'
import json, sys

manifest = json.load(open(sys.argv[1]))
ledger, objects = manifest["ledger"], manifest["objects"]
dropped = ledger["dropped"]
lost = sum(ledger["port"].values()) + sum(count for cause, count in dropped.items() if cause != "limit")
held = sum(one["packets"] for one in objects)
print(f"""    {ledger['offered']:,} frames came by and the filter took {ledger['matched']:,}. The capture ended because of {manifest['stop_reason']}.
    {'None was lost' if lost == 0 else f'{lost:,} were lost, and counted'}; {dropped['limit']:,} came after the limit. The files hold {held:,} packets, the ledger says {ledger['captured']:,}.""")
sys.exit(held != ledger["captured"])
END
}

TRAWL_TOKEN=$(random)
OPERATOR_TOKEN=$(random)
port=$(free_port)
export TRAWL_TOKEN TRAWL_ACCOUNT=demo TRAWL_URL=http://127.0.0.1:$port/client/v4

[ -z "$live" ] || lay_wire
write_config
say "checking the config and this host: trawl check"
trawl check --config "$WORK/trawl.toml" || die "trawl check says what is missing"
say "starting trawl serve"
"${inside[@]}" "$TRAWL" serve --config "$WORK/trawl.toml" >"$WORK/trawl.log" 2>&1 &
server=$!
pids+=("$server")
if ! wait_until 30 answers; then
    tail -n 20 "$WORK/trawl.log" >&2
    die "the server does not answer, its log is above"
fi

# The browser is the user's own: only what to type is printed.
show_ui() {
    mkdir -m 700 "$WORK/bucket"
    trawl bucket add --prove "file://$WORK/bucket" >"$WORK/bucket.log" 2>&1 || die "the bucket could not be added: $(cat "$WORK/bucket.log")"
    say "the dashboard is ready"
    note "open          http://127.0.0.1:$port/ui/"
    note "account       $TRAWL_ACCOUNT"
    note "token         $TRAWL_TOKEN"
    note "operator      $OPERATOR_TOKEN   (for http://127.0.0.1:$port/ui/host)"
    note "Frames of curl, dig, ping, ssh and iperf3 come by all the time, as fast as a core can take them. Try"
    note "- a full capture of UDP from port 53 for 10 s: every packet, whole, into $WORK/bucket;"
    note "- one of all packets: more than a disk takes until 256 MiB are there, so the page says what was lost, where, and why;"
    note "- a simple capture: a file to download;"
    note "- a look back, after a quarter of a minute: packets that have already passed, one in a thousand."
    note "Ctrl-C ends the host."
    trap 'kill -TERM "$server" 2>/dev/null || true' INT TERM
    local status=0
    wait "$server" || status=$?
    # The signal ends the wait; the host ends in its own time.
    while kill -0 "$server" 2>/dev/null; do wait "$server" && status=0 || status=$?; done
    [ "$status" = 0 ] || die "the server ended with $status: $(tail -n 20 "$WORK/trawl.log")"
    note "the host has ended"
}

if [ -n "$ui" ]; then
    show_ui
    exit
fi
if [ -n "$live" ]; then
    talk >"$WORK/talk.log" 2>&1 &
    pids+=($!)
    capture web "5 seconds of what a web server receives while curl and ping run" \
        --protocol tcp --destination-port 80 --time-limit 5
    capture ping "exactly 4 packets of ping over IPv6" --protocol icmpv6 --source-address 2001:db8::2 --packet-limit 4 --time-limit 20
else
    capture dns "5 seconds of DNS questions out of recorded frames, played as fast as a core can take them" \
        --protocol udp --destination-port 53 --time-limit 5
    capture ping "exactly 10000 packets of ICMPv6 that one host sent" \
        --protocol icmpv6 --source-address 2001:db8:1::1 --packet-limit 10000 --time-limit 20
fi

say "ending the server (SIGTERM)"
kill -TERM "$server"
status=0
wait "$server" || status=$?
[ "$status" = 0 ] || die "the server ended with $status: $(tail -n 20 "$WORK/trawl.log")"
say "done: the packets went NIC queue -> filter -> blocks -> spool -> merge -> bucket, and every one is accounted for"
