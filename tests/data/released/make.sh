#!/usr/bin/env bash
# Keeps what a version leaves on a host, for the tests that open it with every later one: tests/data/released/make.sh BINARY
# Run once for each release, with its binary; needs two cores and no rights. What it writes, in a folder of the version's name:
#
#   trawl.toml      the example config, with every key
#   state.tar.zst   config, job store and spool of a process that was killed while a capture ran, and what its bucket had by then
#   delivered/      a capture that ended well: objects, manifest, signature and the public key
set -euo pipefail
binary=$(realpath "${1:?usage: "$0" BINARY}")
cd "$(dirname "$0")"
# The job and the journal name it, so tests unpack the state in this place.
home=/tmp/trawl-released
version=$("$binary" --version | cut -d' ' -f2)
rm -rf "$home" "$version"
umask 077
mkdir -p "$home/spool" "$home/bucket" "$version/delivered"
cp ../../../config/trawl.toml "$version/trawl.toml"
cp ../real.pcap "$home/"
"$binary" manifest-key "$home/manifest.pem" >"$version/delivered/public.pem"
cat >"$home/trawl.toml" <<T
[host]
id = "released"
colo = "ord02"
[dpdk]
eal = ["--no-pci", "--in-memory", "--no-huge", "-m", "256"]
[[port]]
device = "net_pcap0,rx_pcap=$home/real.pcap,infinite_rx=1"
[cores]
workers = [1]
writers = [0]
[blocks]
bytes_max = "16MiB"
hugepages = "never"
[spool]
dir = "$home/spool"
bytes_max = "64MiB"
segment_bytes = "4MiB"
pool_bytes = "0B"
rotate_seconds = 1
[store]
path = "$home/trawl.db"
[capture]
simple_interval_seconds = 0
[upload]
allow_file = true
require_validation = false
[manifest]
signing_key_file = "$home/manifest.pem"
[api]
listen = "127.0.0.1:18080"
[[account]]
id = "023e105f4ecef8ad9ca31a8372d0c353"
[[account.credential]]
token_sha256 = "$(printf released | sha256sum | cut -d' ' -f1)"
T
chmod 0600 "$home/trawl.toml"
"$binary" serve --config "$home/trawl.toml" 2>"$home/log" &
process=$!
trap 'kill -9 $process 2>/dev/null || true' EXIT
export TRAWL_URL=http://127.0.0.1:18080/client/v4 TRAWL_ACCOUNT=023e105f4ecef8ad9ca31a8372d0c353 TRAWL_TOKEN=released
until "$binary" capture list >/dev/null 2>&1; do sleep 0.2; done
start() { "$binary" capture start --colo-name ord02 --destination-conf "file://$home/bucket" --protocol udp --destination-port 53 --json "$@"; }
# One that is delivered.
start --time-limit 60 --packet-limit 50 --wait >"$home/first.json"
mv "$home"/bucket/* "$version/delivered/"
"$binary" capture start --type simple --time-limit 1 --packet-limit 10 --wait >/dev/null
# One that runs when the process dies, with segments, objects and a journal.
start --time-limit 3600 --packet-limit 100000 >"$home/second.json"
until [ "$(find "$home/bucket" -type f -name 'pcap_*' | wc -l)" -ge 1 ] && [ -n "$(find "$home/spool" -name '*.open')" ]; do sleep 0.1; done
kill -9 "$process"
wait "$process" 2>/dev/null || true
rm "$home"/real.pcap "$home"/*.json
tar -C "$home" --sparse --sort=name --owner=0 --group=0 --numeric-owner -c . | zstd -q -19 -o "$version/state.tar.zst"
rm -rf "$home"
du -ah "$version"
