#!/usr/bin/env python3
"""The work of bench-api.sh, which prepares what this needs: a capture's rate with and without requests, in turn.

Rates come from the ledger, whose equations are checked at every reading. Python's standard library and wrk only.
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from appliance import Failed, replay, served  # noqa: E402

SETTLE_SECONDS = 0.5
# Captures that a list has to list.
LISTED = 20
# Rounds have two intervals without load; how far apart these are is what a ratio of this run can tell.
NONE, AGAIN = "none", "none again"
BURN = [sys.executable, "-c", "while True: pass"]


class Load:
    """Processes that work on one core while somebody looks elsewhere."""

    def __init__(self, core, commands):
        def pin():
            os.sched_setaffinity(0, {core})
        self.processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin) for command in commands]

    def outcome(self):
        """Requests a second and the 99th percentile of the latency, as wrk writes it. Any answer but 2xx ends it all."""
        figures = 0, "–"
        for process in self.processes:
            if process.args == BURN:
                process.kill()
                process.communicate()
                continue
            text = process.communicate()[0]
            if process.returncode != 0 or "Non-2xx" in text or "Socket errors" in text:
                raise Failed(f"wrk: {text}")
            figures = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), re.search(r"99%\s+(\S+)", text)[1]
        return figures

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def interval(trawl, capture, arguments, commands):
    load = Load(arguments.loader, commands)
    try:
        time.sleep(SETTLE_SECONDS)
        figures = trawl.pace(capture, arguments.seconds)
        figures["requests"], figures["p99"] = load.outcome()
    finally:
        load.end()
    return figures


def loads(trawl, capture, arguments):
    """Each load's commands. wrk works for longer than it is looked at."""
    path = "/" + trawl.url.split("/", 3)[3]
    script = pathlib.Path(arguments.work) / "wrk.lua"
    script.write_text(f"""
wrk.headers["Authorization"] = "Bearer {trawl.token}"
local paths, n = {{"{path}", "{path}/{capture}"}}, 0
request = function() n = n + 1 return wrk.format("GET", paths[n % 2 + 1]) end
""")
    wrk = ["wrk", "-t1", "--latency", f"-d{arguments.seconds + 2 * SETTLE_SECONDS:.0f}s"]
    many = f"-c{arguments.connections}"
    return {
        NONE: [],
        "burner": [BURN, BURN],
        "healthz": [[*wrk, many, f"{trawl.observe}/healthz"]],
        AGAIN: [],
        "list and get": [[*wrk, many, "-s", script, trawl.url]],
        "metrics": [[*wrk, "-c1", f"{trawl.observe}/metrics"]],
    }


def table(found):
    print("| load | requests/s | p99 | received Mpps | captured Mpps | not captured | received against none (min – max) "
          "| captured against none |")
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in found.items():
        def middle(key):
            return statistics.median(row[key] for row in rows)
        ratios = {key: [2 * row[key] / (one[key] + other[key]) for row, one, other in zip(rows, found[NONE], found[AGAIN])]
                  for key in ("rx", "captured")}
        p99 = sorted(rows, key=lambda row: row["requests"])[len(rows) // 2]["p99"]
        rx, captured = (f"{statistics.median(of):.3f} ({min(of):.3f} – {max(of):.3f})" for of in ratios.values())
        print(f"| {name} | {middle('requests'):.0f} | {p99} | {middle('rx') / 1e6:.2f} | {middle('captured') / 1e6:.2f} "
              f"| {middle('lost'):.2%} | {rx} | {captured} |")


def measure(trawl, arguments):
    capture = trawl.create()
    trawl.running(capture)
    for _ in range(LISTED):
        # Discarded, they fail.
        short = trawl.ask("POST", "", {"system": "magic-transit", "type": "simple", "time_limit": 1, "packet_limit": 1})
        trawl.ended(short["id"])
    turns = loads(trawl, capture, arguments)
    found = {name: [] for name in turns}
    for _ in range(arguments.runs):
        for name, commands in turns.items():
            found[name].append(interval(trawl, capture, arguments, commands))
            print(name, found[name][-1], file=sys.stderr)
    trawl.stop(capture)
    ledger = trawl.ended(capture)["ledger"]
    if ledger["captured"] or not ledger["dropped"]["spool"]:
        raise Failed(f"what is discarded must end as dropped.spool: {ledger}")
    table(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("trawl", "work", "memory"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("worker", "writer", "loader", "runs", "connections"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.writer})
    sections = replay(arguments, "frames", "256MiB", {"bytes_max": "1GiB", "write": "discard"},
                      capture={"simple_interval_seconds": 0})
    try:
        with served(arguments.trawl, arguments.work, sections) as trawl:
            measure(trawl, arguments)
    except Failed as failure:
        sys.exit(f"error: {failure}")


if __name__ == "__main__":
    main()
