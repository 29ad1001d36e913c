"""Whether the time of an answer tells that an id exists in another account.

One account asks, by turns at random, for ids that another account has and for ids that nobody has, on every route that takes an id.
All answers must be 404.
"""

import http.client
import os
import random
import secrets
import statistics
import time

from . import Failed, frames
from .appliance import replay, served
from .machine import Host, dpdk, folder, say, trawl
from .results import keep, table

OPTIONS = {"requests": (4000, "for each kind of id and route")}
OWNER, STRANGER = "owner", "stranger"
WARM_UP = 200
RESAMPLES = 200


class Asker:
    """The stranger's connection."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.listen, timeout=30)
        self.headers = {"Authorization": f"Bearer {server.tokens[STRANGER]}"}

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


def prepare(server):
    """What the owner has: (what it is, routes, ids)."""
    simple = []
    for _ in range(4):
        simple.append(server.ask("POST", "", {"system": "magic-transit", "type": "simple", "time_limit": 5, "packet_limit": 9})["id"])
        if server.ended(simple[-1])["status"] != "success":
            raise Failed("a simple capture failed")
    bucket = server.ask("POST", "/ownership", {"destination_conf": f"file://{server.bucket}"})["id"]
    running = server.create(filter_v1={"protocol": 6})
    server.running(running)
    of_captures = [("GET", "/{}"), ("GET", "/{}/progress"), ("PUT", "/{}/stop"), ("GET", "/{}/download"),
                   ("GET", "/{}/series"), ("GET", "/{}/manifest"), ("GET", "/{}/objects/0")]
    return [("a running capture", of_captures, [running]), ("an ended capture", of_captures, simple),
            ("a bucket", [("DELETE", "/ownership/{}")], [bucket])]


def standard_error(theirs, nobodys):
    """Of the difference of two medians."""
    def median(of):
        return statistics.median(random.choices(of, k=len(of)))
    return statistics.stdev(median(theirs) - median(nobodys) for _ in range(RESAMPLES))


def measure(server, requests):
    found, asker, rows = prepare(server), Asker(server), []
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
            rows.append((what, f"{method} …{route.format('ID')}", f"{a:.1f}", f"{b:.1f}",
                         f"{a - b:+.2f} ± {standard_error(theirs, nobodys):.2f}", f"{a / b:.3f}"))
    return table("id of | route | another's µs | nobody's µs | difference µs | ratio", rows)


def run(options):
    host, binary = Host(), trawl()
    os.sched_setaffinity(0, {host.main})
    say(f"{options.requests} requests for each kind of id and route")
    with folder() as work:
        path = frames.write(work / "frames.pcap", "64")
        sections = replay(host, path, "64MiB", {"bytes_max": "1GiB"}, capture={"simple_interval_seconds": 0},
                          api={"requests_per_second_max": 1_000_000})
        with served(binary, work, sections, accounts=(OWNER, STRANGER)) as server:
            found = measure(server, options.requests)
    keep("strangers", "The time of ids that are another's", f"""\
Time of a 404 for an id that another account has against one for an id that nobody has, over one kept-alive connection, in random
order, {options.requests} requests of each kind; medians, and the difference of the medians with its standard error (bootstrap).""",
         found, options.command, dpdk(host.memory))
