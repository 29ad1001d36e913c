#!/usr/bin/env python3
"""Runs full captures against a running trawl and prints, as JSON, what they took per second and what threads spent on it.

Checks every ledger's equations at both readings, ends the server, and counts one segment of the spool with capinfos. Python's
standard library only; see bench.sh for its arguments.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 60
WARM_UP_SECONDS = 0.3
CLOSE_SECONDS = 60
TICKS = os.sysconf("SC_CLK_TCK")

# All source addresses that make-frames.py makes lie in 198.18.0.0/16.
REJECTING = [{"source_address": f"10.0.0.{n}", "destination_port": 443, "protocol": 6} for n in range(64)]
SPLIT = [{"source_address": f"198.18.{4 * n}.0/22"} for n in range(64)]
FILTERS = {"all": [{}], "noport": [{}], "filter1": [{"source_address": "198.18.0.0/16"}], "reject64": REJECTING, "split64": SPLIT,
           "snap160": REJECTING[:1], "sample10": REJECTING[:1]}


def ask(arguments, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {arguments.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(arguments.url + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text)["result"] if text else None


def start(arguments, filter_v1):
    body = {"system": "magic-transit", "type": "full", "time_limit": 3600, "colo_name": "bench",
            "destination_conf": arguments.destination, "filter_v1": filter_v1}
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return ask(arguments, "POST", "", body)["id"]
        except urllib.error.HTTPError as error:
            sys.exit(f"refused: {error.read().decode()}")
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"trawl does not answer: {error}")
            time.sleep(0.1)


def ledger(arguments, capture, running=True):
    progress = ask(arguments, "GET", f"/{capture}/progress")
    counts = progress["ledger"]
    balanced = (counts["offered"] == counts["rx"] + sum(counts["port"].values())
                and counts["rx"] == counts["unmatched"] + counts["matched"]
                and counts["matched"] == counts["captured"] + sum(counts["dropped"].values()))
    if not balanced:
        sys.exit(f"the ledger does not add up: {counts}")
    if running and progress["status"] != "running":
        sys.exit(f"the capture ended during the measurement: {progress}")
    return counts


def reading(arguments, captures):
    """Moment, packets received, packets and bytes captured over all captures."""
    # Each ledger has a moment of its own; over 64 of them the moments differ by some milliseconds in both readings alike.
    before = time.monotonic()
    ledgers = [ledger(arguments, capture) for capture in captures]
    moment = (before + time.monotonic()) / 2
    return moment, ledgers[0]["rx"], sum(x["captured"] for x in ledgers), sum(x["captured_bytes"] for x in ledgers)


def cpu_seconds(server):
    """By kind of thread, what the server's data plane has spent."""
    spent = {"worker": 0.0, "writer": 0.0}
    for task in Path(f"/proc/{server}/task").iterdir():
        name, fields = (task / "stat").read_text().split("(", 1)[1].rsplit(") ", 1)
        for kind in spent:
            if name.startswith(kind):
                spent[kind] += sum(int(field) for field in fields.split()[11:13]) / TICKS
    return spent


def segment(spool):
    return next(iter(sorted(spool.rglob("q*.pcap"))), None)


def check_file(arguments, capture):
    """Stops the capture, and holds the number that capinfos finds in its segment against the ledger."""
    ask(arguments, "PUT", f"/{capture}/stop")
    kept = arguments.spool.parent / "sample.pcap"
    deadline = time.monotonic() + CLOSE_SECONDS
    while True:
        try:
            os.link(segment(arguments.spool) or "", kept)
            break
        except OSError:
            if time.monotonic() > deadline:
                sys.exit("no segment was published")
            time.sleep(0.01)
    captured = ledger(arguments, capture, running=False)["captured"]
    os.kill(arguments.server, signal.SIGKILL)
    answer = subprocess.run(["capinfos", "-M", "-T", "-r", "-c", kept], capture_output=True, text=True, check=True)
    kept.unlink()
    counted = int(answer.stdout.split()[-1])
    if counted != captured:
        sys.exit(f"the ledger says {captured} packets, capinfos counts {counted}")
    return counted


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--destination", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--captures", choices=FILTERS, required=True)
    parser.add_argument("--server", type=int, required=True, help="its process id")
    parser.add_argument("--spool", type=Path, required=True)
    arguments = parser.parse_args()
    captures = [start(arguments, filter_v1) for filter_v1 in FILTERS[arguments.captures]]
    deadline = time.monotonic() + START_SECONDS
    while not all(ledger(arguments, capture, running=False)["rx"] for capture in captures):
        if time.monotonic() > deadline:
            sys.exit("nothing was received")
        time.sleep(0.05)
    time.sleep(WARM_UP_SECONDS)
    spent_before = cpu_seconds(arguments.server)
    t1, rx1, packets1, bytes1 = reading(arguments, captures)
    time.sleep(arguments.seconds)
    t2, rx2, packets2, bytes2 = reading(arguments, captures)
    spent = {kind: seconds - spent_before[kind] for kind, seconds in cpu_seconds(arguments.server).items()}
    seconds, packets, size = t2 - t1, packets2 - packets1, bytes2 - bytes1
    figures = {"rx_pps": round((rx2 - rx1) / seconds), "pps": round(packets / seconds), "bps": round(size * 8 / seconds),
               # 16 bytes of record header on disk for each.
               "bytes_s": round((size + 16 * packets) / seconds), "not_captured": round(max(0, 1 - packets / (rx2 - rx1)), 4)}
    if packets:
        written = (size + 16 * packets) / 1e9
        figures.update({f"{kind}_core_s_per_gb": round(value / written, 3) for kind, value in spent.items()})
    if arguments.captures == "all":
        if segment(arguments.spool) or any(arguments.spool.rglob(".q*.open")):
            figures["capinfos"] = check_file(arguments, captures[0])
    try:
        os.kill(arguments.server, signal.SIGKILL)
    except ProcessLookupError:
        pass
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
