#!/usr/bin/env bash
# Records tests/data/real.pcap: frames of real programs between two network namespaces joined by a veth pair.
# Needs root. Takes about 15 seconds, cleans up after itself, and rewrites tests/data/README.md with the counts.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../../scripts/lib.sh"

OUT=$ROOT/tests/data/real.pcap
CLIENT=trawl-rec-c-$$ SERVER=trawl-rec-s-$$
WORK=$(mktemp -d /tmp/trawl-record.XXXXXX)
pids=()

cleanup() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    ip netns del "$CLIENT" 2>/dev/null || true
    ip netns del "$SERVER" 2>/dev/null || true
    rm -rf "$WORK"
}
trap cleanup EXIT

is_root || die "recording makes network namespaces: run it as root"
need_apt curl bind9-dnsutils iputils-ping openssh-client openssh-server iperf3 tcpdump tshark dnsmasq-base ethtool \
    iproute2 python3 || die "packages are missing"

client() { ip netns exec "$CLIENT" "$@"; }
server() { ip netns exec "$SERVER" "$@"; }
serve() {
    ip netns exec "$SERVER" "$@" >>"$WORK/servers.log" 2>&1 &
    pids+=($!)
}

# Addresses are those for documentation (RFC 5737, RFC 3849). VLAN 42 has its own networks on the same wire.
lay_wire() {
    ip netns add "$CLIENT"
    ip netns add "$SERVER"
    ip link add wire0 netns "$CLIENT" address 02:00:00:00:00:01 type veth \
        peer name wire0 netns "$SERVER" address 02:00:00:00:00:02
    local ns host
    for ns in "$CLIENT" "$SERVER"; do
        host=1
        [ "$ns" = "$CLIENT" ] || host=2
        # Without segmentation and checksum offload the frames are what a NIC would see: at most the MTU, checksums right.
        ip netns exec "$ns" ethtool -K wire0 tso off gso off gro off tx off rx off txvlan off rxvlan off \
            >/dev/null 2>>"$WORK/ethtool.log"
        ip netns exec "$ns" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
        ip -n "$ns" addr add "192.0.2.$host/25" dev wire0
        ip -n "$ns" addr add "2001:db8:1::$host/64" dev wire0 nodad
        ip -n "$ns" link set lo up
        ip -n "$ns" link set wire0 up
        # Many kernels of virtual machines are built without 802.1Q; the tags are real either way.
        ip netns exec "$ns" "$ROOT/tests/data/vlan-tap.py" wire0 tagged 42 &
        pids+=($!)
        wait_until 10 ip -n "$ns" link show tagged || die "no TAP device: is /dev/net/tun there?"
        ip -n "$ns" addr add "192.0.2.$((128 + host))/25" dev tagged
        ip -n "$ns" addr add "2001:db8:42::$host/64" dev tagged nodad
        ip -n "$ns" link set tagged up
    done
}

start_servers() {
    mkdir -p "$WORK/www" "$WORK/ssh" /run/sshd
    head -c 20000 /dev/urandom | base64 -w 76 | head -c 20000 >"$WORK/www/report.txt"
    serve python3 -m http.server --directory "$WORK/www" --bind :: 80
    serve dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file="$WORK/dnsmasq.pid" \
        --address=/www.example.net/192.0.2.2 --address=/www.example.net/2001:db8:1::2 \
        --txt-record=example.net,"$(printf 'x%.0s' $(seq 200))"
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$WORK/ssh/host"
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$WORK/ssh/user"
    serve /usr/sbin/sshd -D -e -f /dev/null -p 2222 -h "$WORK/ssh/host" -o "AuthorizedKeysFile=$WORK/ssh/user.pub" \
        -o UsePAM=no -o StrictModes=no -o PermitRootLogin=prohibit-password -o PidFile=none
    serve iperf3 -s -p 5201
    local port
    for port in 80 2222 5201; do
        wait_until 10 client bash -c "exec 3<>/dev/tcp/192.0.2.2/$port" || die "no server on port $port: $(cat "$WORK/servers.log")"
    done
    wait_until 10 client dig +time=1 +tries=1 @192.0.2.2 www.example.net || die "no DNS server: $(cat "$WORK/servers.log")"
}

log_in() {
    client ssh -p 2222 -i "$WORK/ssh/user" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@"
}

# The programs, each over IPv4, IPv6 and where it says so inside VLAN 42.
make_traffic() {
    client curl -fsS -o /dev/null http://192.0.2.2/report.txt
    client curl -fsS -o /dev/null 'http://[2001:db8:1::2]/report.txt'
    client curl -sS -o /dev/null http://192.0.2.2/missing.html
    client curl -fsS -o /dev/null http://192.0.2.130/report.txt
    client dig +noall @192.0.2.2 www.example.net A
    client dig +noall @2001:db8:1::2 www.example.net AAAA
    client dig +noall +tcp @192.0.2.2 example.net TXT
    client dig +noall @192.0.2.130 www.example.net A
    client ping -q -c 3 -i 0.2 192.0.2.2 >/dev/null
    client ping -q -c 3 -i 0.2 2001:db8:1::2 >/dev/null
    client ping -q -c 2 -i 0.2 -s 4000 192.0.2.2 >/dev/null
    client ping -q -c 2 -i 0.2 -s 4000 2001:db8:1::2 >/dev/null
    client ping -q -c 3 -i 0.2 192.0.2.130 >/dev/null
    client ping -q -c 1 -s 4000 2001:db8:42::2 >/dev/null
    log_in root@192.0.2.2 uname -s >/dev/null
    log_in root@2001:db8:42::2 true
    client iperf3 -c 192.0.2.2 -n 48K -l 8K >/dev/null
    client iperf3 -c 2001:db8:1::2 -u -b 2M -n 24K -l 1200 >/dev/null
}

# `count WORDS FILTER`: one row of the table.
count() { echo "| $1 | \`$2\` | $(tshark -r "$OUT" -Y "$2" 2>/dev/null | wc -l) |"; }

write_readme() {
    {
        cat <<END
# Recorded frames

\`real.pcap\` (classic pcap, nanosecond time stamps) holds frames of real programs: curl against Python's http.server,
dig against dnsmasq, ping, ssh against sshd with throwaway keys, and iperf3, between two network namespaces joined by a
veth pair, part of it inside VLAN 42, part of it fragmented. Offloads were off: no frame is longer than the MTU allows
and checksums are right. Addresses are those for documentation. Port 2222 is ssh, 5201 iperf3.

\`tests/data/record.sh\` makes a new recording and rewrites this page. Tests take their expected counts from
\`tshark\` on the file itself, so a new recording breaks none of them.

$(capinfos -Mc "$OUT" | sed -n 's/^Number of packets: *//p') frames, $(stat -c %s "$OUT") bytes. Counts by tshark's display filters:

| what | filter | frames |
|---|---|---|
END
        count 'HTTP and its TCP' 'tcp.port == 80'
        count 'DNS over UDP' 'udp.port == 53'
        count 'DNS over TCP' 'tcp.port == 53'
        count 'ssh' 'tcp.port == 2222'
        count 'iperf3 over TCP, control and data' 'tcp.port == 5201'
        count 'iperf3 over UDP' 'udp.port == 5201'
        count 'ICMP, with fragments' 'ip.proto == 1'
        count 'ICMPv6 echo' 'icmpv6.type == 128 or icmpv6.type == 129'
        count 'IPv4' 'ip'
        count 'IPv6' 'ipv6'
        count 'ARP' 'arp'
        count 'VLAN 42' 'vlan.id == 42'
        count 'fragments of IPv4' 'ip.flags.mf == 1 or ip.frag_offset > 0'
        count 'fragments of IPv6' 'ipv6.fraghdr'
    } >"$ROOT/tests/data/README.md"
}

lay_wire
start_servers
say "recording"
# tcpdump drops its rights before it opens the file unless it is told not to.
ip netns exec "$SERVER" tcpdump -i wire0 -Z root -U -w "$WORK/real.pcap" --time-stamp-precision=nano -s 0 2>"$WORK/tcpdump.log" &
recorder=$!
pids+=("$recorder")
wait_until 10 grep -q 'listening on' "$WORK/tcpdump.log" || die "tcpdump did not start: $(cat "$WORK/tcpdump.log")"
make_traffic
# The last FINs and the kernel's ring.
sleep 1
kill -TERM "$recorder"
wait "$recorder" || true
grep -q '^0 packets dropped by kernel' "$WORK/tcpdump.log" || die "tcpdump lost packets, record again: $(cat "$WORK/tcpdump.log")"
bytes=$(stat -c %s "$WORK/real.pcap")
[ "$bytes" -le 307200 ] || die "the recording is $bytes bytes long, more than 300 KiB"
cp "$WORK/real.pcap" "$OUT"
write_readme
say "wrote $OUT ($bytes bytes)"
cat "$ROOT/tests/data/README.md"
