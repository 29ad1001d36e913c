#!/usr/bin/env bash
# What a new user does with the package, in the system that packaging/boot.sh has booted. Each step says what it has seen; the first
# that sees something else ends the run. The verdict is the file /out/verdict.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

CONFIG=/etc/trawl/trawl.toml
export TRAWL_ACCOUNT=023e105f4ecef8ad9ca31a8372d0c353 TRAWL_TOKEN=change-me
OUT=file:///var/lib/trawl/out

began=$SECONDS
ok() { printf 'ok %3d s  %s\n' $((SECONDS - began)) "$*"; }
fail() {
    printf 'FAILED after %d s: %s\n' $((SECONDS - began)) "$*"
    systemctl --no-pager --full status trawl.service | head -n 40 || true
    exit 1
}
# `same WHAT WANTED FOUND`
same() { [ "$2" = "$3" ] || fail "$1: $3, and not $2"; }
# `until_so SECONDS WHAT COMMAND...`
until_so() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "not in time: $what"
        sleep 0.2
    done
}
show() { systemctl show --value -p "$1" trawl.service; }
has_ended() { [ "$(show ActiveState)" = inactive ]; }
is_active() { [ "$(show ActiveState)" = active ]; }
is_ready() { [ "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9090/readyz)" = 200 ]; }
restarted() { [ "$(show NRestarts)" -gt "$1" ] && is_active; }
# UDP frames from one end of the veth to the other, which no address has.
send() {
    local n
    for ((n = 0; n < $1; n++)); do echo "frame $n" >/dev/udp/10.9.0.2/4242; done
}
capture() { trawl capture start --time-limit 600 --colo-name local --destination-conf "$OUT" --json "$@"; }
# The first id of what is read.
id_of() { grep -oE '"id": *"[0-9a-f]{32}"' | head -n 1 | grep -oE '[0-9a-f]{32}'; }
status_of() { trawl capture show "$1" --json | grep -oE '"status": *"[a-z_]+"' | head -n 1 | cut -d'"' -f4; }
is_success() { [ "$(status_of "$1")" = success ]; }
packets_of() { for object in /var/lib/trawl/out/pcap_"$1"*.pcap; do trawl filter test "$object" --json; done | grep -oE '"(packets|total)": *[0-9]+' | head -n 1 | grep -oE '[0-9]+$'; }
captured() { trawl capture show "$1" --json | grep -oE '"captured": *[0-9]+' | head -n 1 | grep -oE '[0-9]+$'; }
has_captured() { [ "$(captured "$1")" -ge "$2" ]; }
has_segment() { [ -n "$(find /var/lib/trawl/spool/"$1" -name 'q*.pcap')" ]; }

install() { apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" </dev/null; }

until_so 60 "a booted system" sh -c 'systemctl is-system-running | grep -qE "running|degraded|starting"'

# --- install
install install /pkg/first.deb >/out/install 2>&1 || { tail -n 20 /out/install && fail "apt install"; }
same "the user" trawl "$(getent passwd trawl | cut -d: -f1)"
same "the spool" "trawl:trawl 700" "$(stat -c '%U:%G %a' /var/lib/trawl/spool)"
same "the config" "root:trawl 640" "$(stat -c '%U:%G %a' $CONFIG)"
same "the unit" disabled "$(systemctl is-enabled trawl.service || true)"
same "the unit's state" inactive "$(show ActiveState)"
for file in /usr/share/man/man1/trawl-capture-start.1.gz /lib/udev/rules.d/60-trawl.rules; do
    [ -e "$file" ] || fail "no $file"
done
trawl --version >/dev/null
ok "apt install: user, directories, rights; nothing was started"

# --- the config by its comments
trawl check --config $CONFIG >/out/check 2>&1 && fail "a config for another machine is taken"
ip link add send0 type veth peer name cap0
ip link set send0 up && ip link set cap0 up && ip link set lo up
for end in send0 cap0; do echo 1 >/proc/sys/net/ipv6/conf/$end/disable_ipv6; done
ip addr add 10.9.0.1/24 dev send0
ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev send0
mount --bind /disks/spool /var/lib/trawl/spool
mkdir /var/lib/trawl/out
mount --bind /disks/out /var/lib/trawl/out
chown trawl:trawl /var/lib/trawl/spool /var/lib/trawl/out
sed -i -e 's|^device = .*|device = "interface:cap0"|' \
    -e 's|^eal = .*|eal = ["--no-pci", "--in-memory", "--no-huge", "-m", "256"]|' \
    -e '/^\[blocks\]/,/^\[/s|^bytes_max = .*|bytes_max = "64MiB"|' -e 's|^hugepages = .*|hugepages = "never"|' \
    -e '/^\[spool\]/,/^\[/s|^bytes_max = .*|bytes_max = "256MiB"|' -e 's|^segment_bytes = .*|segment_bytes = "16MiB"|' \
    -e 's|^rotate_seconds = .*|rotate_seconds = 1|' -e 's|^full_per_account = .*|full_per_account = 4|' \
    -e 's|^allow_file = .*|allow_file = true|' -e 's|^file_roots = .*|file_roots = ["/var/lib/trawl/out"]|' \
    -e 's|^#listen = "127.0.0.1:9090"|listen = "127.0.0.1:9090"|' -e 's|^watchdog_seconds = .*|watchdog_seconds = 3|' $CONFIG
mkdir -p /etc/systemd/system/trawl.service.d
printf '[Service]\nWatchdogSec=6s\nTimeoutStopSec=10s\n' >/etc/systemd/system/trawl.service.d/test.conf
systemctl daemon-reload

# --- start
systemctl start trawl.service || fail "systemctl start"
is_ready || fail "started, and /readyz is not 200: $(curl -s http://127.0.0.1:9090/readyz)"
same "the type" notify "$(show Type)"
case $(show StatusText) in
'0 captures run, 0 are not delivered yet; spool '*) ok "systemctl start returned when /readyz was 200; status: $(show StatusText)" ;;
*) fail "status: $(show StatusText)" ;;
esac

# --- a capture
id=$(capture --packet-limit 100 | id_of)
until_so 20 "a running capture in the status" sh -c 'systemctl show --value -p StatusText trawl.service | grep -q "^1 captures run"'
send 100
until_so 30 "the capture's success" is_success "$id"
same "packets in the object" 100 "$(packets_of "$id")"
trawl verify /var/lib/trawl/out/pcap_"$id".json >/out/verify 2>&1 || { cat /out/verify && fail "trawl verify"; }
ok "a capture of 100 frames on a veth: 100 in the object, trawl verify agrees"

# --- a process that hangs
id=$(capture | id_of)
send 50
until_so 20 "50 frames" has_captured "$id" 50
until_so 20 "a segment on the disk" has_segment "$id"
kill -STOP "$(show MainPID)"
until_so 60 "a restart by the watchdog" restarted 0
journalctl -b -u trawl.service --no-pager | grep -q 'Watchdog timeout' || fail "no word of the watchdog"
until_so 30 "readiness" is_ready
until_so 30 "the delivery of what was captured" is_success "$id"
same "packets in the object" 50 "$(packets_of "$id")"
ok "a process that hangs is killed by the watchdog and started again; its capture is delivered, 50 of 50"

# --- a disk that does not answer
restarts=$(show NRestarts) process=$(show MainPID)
id=$(capture | id_of)
send 50
until_so 20 "50 frames" has_captured "$id" 50
fsfreeze -f /disks/spool
send 50
sleep 25
fsfreeze -u /disks/spool
same "restarts" "$restarts" "$(show NRestarts)"
same "the process" "$process" "$(show MainPID)"
journalctl -b -u trawl.service --no-pager | grep -q 'a stage stands still' || fail "the writer did not wait for its disk"
until_so 20 "100 frames" has_captured "$id" 100
trawl capture stop "$id" >/dev/null
until_so 30 "the capture's success" is_success "$id"
same "packets in the object" 100 "$(packets_of "$id")"
ok "a disk that stands still for 25 s, of which the log tells, restarts nothing and loses nothing"

# --- a stop while an upload takes longer than TimeoutStopSec
id=$(capture | id_of)
send 50
until_so 20 "50 frames" has_captured "$id" 50
fsfreeze -f /disks/out
systemctl stop --no-block trawl.service
until_so 20 "the end's status" sh -c 'systemctl show --value -p StatusText trawl.service | grep -q "^ends: "'
sleep 20
same "the state after 20 s, with TimeoutStopSec=10s" deactivating "$(show ActiveState)"
fsfreeze -u /disks/out
until_so 60 "the end" has_ended
same "the result" success "$(show Result)"
same "packets in the object" 50 "$(packets_of "$id")"
ok "a stop with TimeoutStopSec=10s waited 20 s for an upload and ended well, 50 of 50"

# --- upgrade
systemctl start trawl.service
process=$(show MainPID)
sum=$(sha256sum <$CONFIG)
install -o Dpkg::Options::=--force-confold install /pkg/second.deb >/out/upgrade 2>&1 || { tail -n 20 /out/upgrade && fail "upgrade"; }
same "the config" "$sum" "$(sha256sum <$CONFIG)"
same "its rights" "root:trawl 640" "$(stat -c '%U:%G %a' $CONFIG)"
tail -n 1 $CONFIG.dpkg-dist | grep -q 'first version did not have' || fail "the new example config is not beside it"
same "the process" "$process" "$(show MainPID)"
is_ready || fail "not ready after the upgrade"
grep -q "systemctl restart trawl" /out/upgrade || fail "the upgrade does not say what to do"
systemctl restart trawl.service
is_ready || fail "not ready after the restart"
ok "an upgrade leaves the changed config and the running process, and says to restart"

# --- purge
install purge trawl >/out/purge 2>&1 || { tail -n 20 /out/purge && fail "purge"; }
umount /var/lib/trawl/out /var/lib/trawl/spool
rm -r /etc/systemd/system/trawl.service.d $CONFIG.dpkg-dist 2>/dev/null || true
[ ! -e /proc/"$process" ] || fail "the process lives"
left=$(find / -xdev \( -name '*trawl*' -o -name '*60-trawl*' \) -not -path '/proc/*' -not -path '/old/*' -not -path '/pkg/*' -not -path '/out/*' \
    -not -path '/var/lib/trawl*' -not -path '/tmp/*' -not -path '/var/log/*' -not -path '/var/cache/*' | tr '\n' ' ')
same "what a purge leaves" "" "${left% }"
[ -d /var/lib/trawl ] || fail "the spool is gone"
ok "apt purge leaves /var/lib/trawl, and nothing else"
echo passed >/out/verdict
