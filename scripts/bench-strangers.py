#!/usr/bin/env python3
"""The work of bench-strangers.sh, which prepares what this needs: answers to a stranger, timed.

Python's standard library only.
"""

import argparse
import http.client
import os
import random
import secrets
import statistics
import sys
import time

sys.dont_write_bytecode = True
from appliance import Failed, replay, served  # noqa: E402

OWNER, STRANGER = "owner", "stranger"
WARM_UP = 200
RESAMPLES = 200


class Asker:
    """The stranger's connection."""

    def __init__(self, trawl):
        self.connection = http.client.HTTPConnection(trawl.listen, timeout=30)
        self.headers = {"Authorization": f"Bearer {trawl.tokens[STRANGER]}"}

    def microseconds(self, method, route, identifier):
        path = f"/client/v4/accounts/{STRANGER}/pcaps{route.format(identifier)}"
        began = time.perf_counter_ns()
        self.connection.request(method, path, headers=self.headers)
        answer = self.connection.getresponse()
        answer.read()
        took = time.perf_counter_ns() - began
        if answer.status != 404:
            raise Failed(f"{method} {path} is answered {answer.status}")
        return took / 1000


def prepare(trawl):
    """What the owner has: (what it is, routes, ids)."""
    simple = []
    for _ in range(4):
        simple.append(trawl.ask("POST", "", {"system": "magic-transit", "type": "simple", "time_limit": 5, "packet_limit": 9})["id"])
        if trawl.ended(simple[-1])["status"] != "success":
            raise Failed("a simple capture failed")
    bucket = trawl.ask("POST", "/ownership", {"destination_conf": f"file://{trawl.bucket}"})["id"]
    running = trawl.create(filter_v1={"protocol": 6})
    trawl.running(running)
    of_captures = [("GET", "/{}"), ("GET", "/{}/progress"), ("PUT", "/{}/stop"), ("GET", "/{}/download")]
    return [("a running capture", of_captures, [running]), ("an ended capture", of_captures, simple),
            ("a bucket", [("DELETE", "/ownership/{}")], [bucket])]


def standard_error(theirs, nobodys):
    """Of the difference of two medians."""
    def median(of):
        return statistics.median(random.choices(of, k=len(of)))
    return statistics.stdev(median(theirs) - median(nobodys) for _ in range(RESAMPLES))


def measure(trawl, requests):
    found = prepare(trawl)
    asker = Asker(trawl)
    print("| id of | route | another's µs | nobody's µs | difference µs | ratio |\n|---|---|---|---|---|---|")
    for what, routes, ids in found:
        for method, route in routes:
            times = {True: [], False: []}
            turns = [True, False] * (requests + WARM_UP)
            random.shuffle(turns)
            for theirs in turns:
                identifier = random.choice(ids) if theirs else secrets.token_hex(16)
                times[theirs].append(asker.microseconds(method, route, identifier))
            theirs, nobodys = times[True][WARM_UP:], times[False][WARM_UP:]
            a, b = statistics.median(theirs), statistics.median(nobodys)
            print(f"| {what} | {method} …{route.format('ID')} | {a:.1f} | {b:.1f} | {a - b:+.2f} ± {standard_error(theirs, nobodys):.2f} "
                  f"| {a / b:.3f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("trawl", "work", "memory"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("worker", "writer", "requests"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.writer})
    sections = replay(arguments, "frames", "64MiB", {"bytes_max": "1GiB"}, capture={"simple_interval_seconds": 0})
    try:
        with served(arguments.trawl, arguments.work, sections, accounts=(OWNER, STRANGER)) as trawl:
            measure(trawl, arguments.requests)
    except Failed as failure:
        sys.exit(f"error: {failure}")


if __name__ == "__main__":
    main()
