#!/usr/bin/env python3
"""Measures a capture's rate with and without requests, in turn, and prints a Markdown table.

Usage: bench-api.py PCAPS_URL METRICS_URL TOKEN DESTINATION CORE RUNS SECONDS CONNECTIONS. Called by bench-api.sh, on whose CORE
it and wrk run. Rates come from the worker's own counters, read on either side of an interval. Standard library and wrk only.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

START_SECONDS = 30
SETTLE_SECONDS = 0.5
LISTED = 20


def ask(method, url, token, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
        text = answer.read()
    return json.loads(text)["result"] if text else None


def create(url, token, **what):
    body = {"system": "magic-transit", "filter_v1": {}, **what}
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return ask("POST", url, token, body)["id"]
        except urllib.error.HTTPError as error:
            sys.exit(f"refused: {error.read().decode()}")
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"trawl does not answer: {error}")
            time.sleep(0.1)


def reading(url, token, capture):
    before = time.monotonic()
    progress = ask("GET", f"{url}/{capture}/progress", token)
    if progress["status"] != "running":
        sys.exit(f"the capture ended: {progress}")
    return (before + time.monotonic()) / 2, progress["ledger"]


def wrk(arguments, seconds):
    """Starts wrk for longer than it is looked at."""
    return subprocess.Popen(["wrk", "-t1", f"-d{seconds + 2}s", "--latency", *arguments],
                            stdout=subprocess.PIPE, text=True)


def outcome(process):
    """Requests a second and the 99th percentile of the latency as wrk writes it. Any answer but 2xx ends it all."""
    text = process.communicate()[0]
    if process.returncode != 0 or "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"wrk: {text}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), re.search(r"99%\s+(\S+)", text)[1]


def interval(url, token, capture, seconds, load):
    process = wrk(load, seconds) if load else None
    time.sleep(SETTLE_SECONDS)
    t1, a = reading(url, token, capture)
    time.sleep(seconds)
    t2, b = reading(url, token, capture)
    figures = {key: (b[key] - a[key]) / (t2 - t1) for key in ("rx", "captured")}
    figures["lost"] = 1 - (b["captured"] - a["captured"]) / (b["offered"] - a["offered"])
    figures["requests"], figures["p99"] = outcome(process) if process else (0, "–")
    return figures


def main():
    url, metrics, token, destination = sys.argv[1:5]
    core, runs, seconds, connections = map(int, sys.argv[5:])
    os.sched_setaffinity(0, {core})
    capture = create(url, token, type="full", colo_name="bench", time_limit=3600, destination_conf=destination)
    # So that a list has something to list; discarded, they fail.
    for _ in range(LISTED):
        create(url, token, type="simple", time_limit=1, packet_limit=1)
    time.sleep(3)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        path = "/" + url.split("/", 3)[3]
        script.write(f"""
wrk.headers["Authorization"] = "Bearer {token}"
local paths, n = {{"{path}", "{path}/{capture}"}}, 0
request = function() n = n + 1 return wrk.format("GET", paths[n % 2 + 1]) end
""")
        script.flush()
        loads = {
            "none": None,
            "list and get": [f"-c{connections}", "-s", script.name, url],
            "/metrics": ["-c1", metrics],
        }
        found = {name: [] for name in loads}
        for _ in range(runs):
            for name, load in loads.items():
                found[name].append(interval(url, token, capture, seconds, load))
                print(name, found[name][-1], file=sys.stderr)
    print("| requests | requests/s | p99 | received Mpps | captured Mpps | not captured | received against none (min – max) |")
    print("|---|---|---|---|---|---|---|")
    for name, rows in found.items():
        middle = lambda key: statistics.median(row[key] for row in rows)
        ratios = [row["rx"] / none["rx"] for row, none in zip(rows, found["none"])]
        p99 = rows[sorted(range(len(rows)), key=lambda i: rows[i]["requests"])[len(rows) // 2]]["p99"]
        print(f"| {name} | {middle('requests'):.0f} | {p99} | {middle('rx') / 1e6:.2f} | {middle('captured') / 1e6:.2f} "
              f"| {middle('lost'):.2%} | {statistics.median(ratios):.3f} ({min(ratios):.3f} – {max(ratios):.3f}) |")
    ask("PUT", f"{url}/{capture}/stop", token)


if __name__ == "__main__":
    main()
