"""What viewers of the dashboard cost the data plane.

While one capture takes every frame of a net_pcap device at full rate, intervals with and without viewers follow each other; the ratio
is that of neighbours in one run.

  none     nobody looks; twice a round, so that the noise of the run can be seen
  viewers  each holds a stream and asks for its pages every two seconds: the list, a capture, its progress and its series; the
           operators among them hold the host's stream and ask for its state and its past quarter of an hour

Viewers are of as many accounts as their streams need, and each account has a capture whose counts change every second. They are one
process on the core that writer, runtime and API have; the worker has the last core for itself. Segments are discarded: the disk is
not measured.
"""

import hashlib
import http.client
import json
import multiprocessing
import os
import secrets
import statistics
import threading
import time

from . import Failed, frames
from .appliance import replay, served
from .machine import Host, dpdk, folder, note, say, trawl
from .results import keep, spread, table

OPTIONS = {
    "runs": (10, "rounds"),
    "seconds": (5.0, "of each interval"),
    "size": ("imix", "of frames, with FCS"),
    "viewers": (20, "viewers; every fifth is an operator"),
}
STREAMS_PER_ACCOUNT = 4
PAGE_SECONDS = 2.0
SETTLE_SECONDS = 1.0
NONE, VIEWERS, AGAIN = "none", "viewers", "none again"


class Viewer:
    """One browser: a stream, and requests for pages beside it."""

    def __init__(self, listen, token, stream, pages):
        self.listen, self.stream, self.pages = listen, stream, pages
        self.headers = {"Authorization": f"Bearer {token}"}
        self.events, self.answers, self.ends = 0, 0, threading.Event()
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.follow, self.ask)]
        for thread in self.threads:
            thread.start()

    def get(self, connection, path):
        connection.request("GET", path, headers=self.headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise Failed(f"{path} is answered {answer.status}: {answer.read()}")
        return answer

    def follow(self):
        answer = self.get(http.client.HTTPConnection(self.listen, timeout=30), self.stream)
        while not self.ends.is_set():
            line = answer.readline()
            if not line:
                return
            self.events += line.startswith(b"event: ")

    def ask(self):
        connection = http.client.HTTPConnection(self.listen, timeout=30)
        while not self.ends.is_set():
            for path in self.pages:
                self.get(connection, path).read()
                self.answers += 1
            self.ends.wait(PAGE_SECONDS)


def look(listen, viewers, core, told):
    """The process of all viewers: tells how many events and answers they had, once it is asked."""
    os.sched_setaffinity(0, {core})
    all_of = [Viewer(listen, *viewer) for viewer in viewers]
    told.recv()
    for viewer in all_of:
        viewer.ends.set()
    told.send((sum(viewer.events for viewer in all_of), sum(viewer.answers for viewer in all_of)))
    os._exit(0)


def interval(server, capture, options, viewers):
    process, (ours, theirs) = None, multiprocessing.Pipe()
    if viewers:
        process = multiprocessing.Process(target=look, args=(server.listen, viewers, options.core, theirs))
        process.start()
    try:
        time.sleep(SETTLE_SECONDS)
        figures = server.pace(capture, options.seconds)
        figures["events"], figures["answers"] = 0, 0
        if process:
            ours.send("end")
            if not ours.poll(30):
                raise Failed("the viewers do not end")
            figures["events"], figures["answers"] = ours.recv()
            if figures["events"] < len(viewers) * options.seconds / 2:
                raise Failed(f"{len(viewers)} viewers saw {figures['events']} events in {options.seconds:g} s")
    finally:
        if process:
            process.kill()
            process.join()
    return figures


def rows(found):
    for name, intervals in found.items():
        def middle(key, intervals=intervals):
            return statistics.median(interval[key] for interval in intervals)
        ratios = [[2 * now[key] / (one[key] + other[key]) for now, one, other in zip(intervals, found[NONE], found[AGAIN])]
                  for key in ("rx", "captured")]
        yield (name, f"{middle('events'):.0f}", f"{middle('answers'):.0f}", f"{middle('rx') / 1e6:.2f}",
               f"{middle('captured') / 1e6:.2f}", *map(spread, ratios))


def prepare(server, options):
    """A capture of everything, one of nearly nothing in each other account, and what each viewer looks at."""
    accounts = list(server.tokens)
    captures = {}
    for account in accounts:
        server.url = f"http://{server.listen}/client/v4/accounts/{account}/pcaps"
        server.token = server.tokens[account]
        rare = {"protocol": 132} if captures else {}
        captures[account] = server.create(filter_v1=rare)
        server.running(captures[account])
    first = accounts[0]
    server.url, server.token = f"http://{server.listen}/client/v4/accounts/{first}/pcaps", server.tokens[first]
    viewers = []
    for number in range(options.viewers):
        if number % 5 == 4:
            viewers.append((options.operator, "/ui/host/events", ["/ui/host", "/ui/host/series"]))
            continue
        account = accounts[(number - number // 5) // STREAMS_PER_ACCOUNT]
        pcaps, capture = f"/accounts/{account}/pcaps", captures[account]
        pages = [f"{pcaps}?limit=50", f"{pcaps}/{capture}", f"{pcaps}/{capture}/progress", f"{pcaps}/{capture}/series"]
        viewers.append((server.tokens[account], f"{pcaps}/events", pages))
    return captures[first], viewers


def measure(server, options):
    capture, viewers = prepare(server, options)
    found = {NONE: [], VIEWERS: [], AGAIN: []}
    for _ in range(options.runs):
        for name, intervals in found.items():
            intervals.append(interval(server, capture, options, viewers if name == VIEWERS else []))
            note(f"{name} {json.dumps(intervals[-1])}")
    return table("viewers | events | answers | received Mpps | captured Mpps | received against none (min – max) "
                 "| captured against none", rows(found))


def run(options):
    host, binary = Host(), trawl()
    options.core, options.operator = host.main, secrets.token_hex(16)
    os.sched_setaffinity(0, {host.main})
    say(f"{options.runs} rounds of three intervals of {options.seconds:g} s")
    count = -(-(options.viewers - options.viewers // 5) // STREAMS_PER_ACCOUNT)
    operator = {"token_sha256": hashlib.sha256(options.operator.encode()).hexdigest()}
    with folder() as work:
        path = frames.write(work / "frames.pcap", options.size)
        sections = replay(host, path, "256MiB", {"bytes_max": "1GiB", "write": "discard"}, **{"[operator": operator})
        with served(binary, work, sections, accounts=tuple(f"viewer{n}" for n in range(count))) as server:
            found = measure(server, options)
    keep("viewers", "Viewers of the dashboard", f"""\
One capture takes every frame ({options.size}, 2000 of them, `net_pcap`, `infinite_rx=1`) for the whole run, beside one of each other account that takes
none; {options.runs} rounds of one interval of {options.seconds:g} s each, in turn, with {options.viewers} viewers (a stream each, and pages every two seconds) and
without; medians, and of the ratios to the same round's mean without viewers also the least and the largest. The worker polls on core
{host.poll} alone; writer, runtime, API and viewers have core {host.main}. `write = "discard"`: there is no disk in this.""",
         found, options.command, dpdk(host.memory))
