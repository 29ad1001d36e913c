#!/usr/bin/env python3
"""Runs one full capture against a running trawl and prints what it captured per second: `packets/s bits/s drop-share`.

Usage: bench-capture.py PCAPS_URL TOKEN DESTINATION SECONDS [--finish]. Checks the ledger's equations at both readings.
With --finish it stops the capture and waits for `success`. Python's standard library only.
"""

import json
import sys
import time
import urllib.error
import urllib.request

START_SECONDS = 30
WARM_UP_SECONDS = 0.5
FINISH_SECONDS = 600


def ask(method, url, token, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
        text = answer.read()
    return json.loads(text)["result"] if text else None


def start(url, token, destination):
    body = {"system": "magic-transit", "type": "full", "time_limit": 3600, "colo_name": "bench",
            "destination_conf": destination, "filter_v1": {}}
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
    moment = (before + time.monotonic()) / 2
    ledger = progress["ledger"]
    balanced = (ledger["offered"] == ledger["rx"] + sum(ledger["port"].values())
                and ledger["rx"] == ledger["unmatched"] + ledger["matched"]
                and ledger["matched"] == ledger["captured"] + sum(ledger["dropped"].values()))
    if not balanced:
        sys.exit(f"the ledger does not add up: {ledger}")
    return moment, progress


def main():
    url, token, destination, seconds = sys.argv[1:5]
    capture = start(url, token, destination)
    deadline = time.monotonic() + START_SECONDS
    while reading(url, token, capture)[1]["ledger"]["captured"] == 0:
        if time.monotonic() > deadline:
            sys.exit("nothing was captured")
        time.sleep(0.05)
    time.sleep(WARM_UP_SECONDS)
    t1, first = reading(url, token, capture)
    time.sleep(float(seconds))
    t2, second = reading(url, token, capture)
    if second["status"] != "running":
        sys.exit(f"the capture ended during the measurement: {second}")
    a, b = first["ledger"], second["ledger"]
    packets, size = b["captured"] - a["captured"], b["captured_bytes"] - a["captured_bytes"]
    offered = b["offered"] - a["offered"]
    print(f"{packets / (t2 - t1):.0f} {size * 8 / (t2 - t1):.0f} {1 - packets / offered:.4f}")
    ask("PUT", f"{url}/{capture}/stop", token)
    if "--finish" in sys.argv:
        deadline = time.monotonic() + FINISH_SECONDS
        while (status := reading(url, token, capture)[1]["status"]) not in ("success", "failed"):
            if time.monotonic() > deadline:
                sys.exit(f"still {status} after {FINISH_SECONDS} s")
            time.sleep(0.5)
        if status != "success":
            sys.exit("the capture failed")


if __name__ == "__main__":
    main()
