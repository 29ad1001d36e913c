"""What the API costs the data plane.

While one capture takes every frame of a net_pcap device at full rate, intervals under different loads follow each other; ratios are
of neighbours in one run.

  none          nothing asks; twice a round, so that the noise of the run can be seen
  burner        two processes that only burn CPU where wrk runs: what any work on that core costs
  healthz       wrk on /healthz: the same runtime, as many requests as it takes, and no capture is looked at
  list and get  wrk on the list and on the running capture, by turns
  metrics       wrk on /metrics, one connection

The worker has the last core for itself. With two cores, wrk shares the other one with writer, runtime and API, so requests a
second are a lower bound, and the writer has the least that it can get; with three and more, wrk has one of its own.
Segments are discarded: the disk is not measured.
"""

import os
import re
import statistics
import subprocess
import sys
import time

from . import Failed, frames
from .appliance import replay, served
from .machine import Host, dpdk, folder, note, say, trawl
from .results import keep, spread, table

OPTIONS = {
    "runs": (5, "rounds"),
    "seconds": (3.0, "of each interval"),
    "size": ("imix", "of frames, with FCS"),
    "connections": (16, "of wrk"),
}
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


def interval(server, capture, options, commands):
    load = Load(options.loader, commands)
    try:
        time.sleep(SETTLE_SECONDS)
        figures = server.pace(capture, options.seconds)
        figures["requests"], figures["p99"] = load.outcome()
    finally:
        load.end()
    return figures


def loads(server, capture, options):
    """Each load's commands. wrk works for longer than it is looked at."""
    path = "/" + server.url.split("/", 3)[3]
    script = server.work / "wrk.lua"
    script.write_text(f"""
wrk.headers["Authorization"] = "Bearer {server.token}"
local paths, n = {{"{path}", "{path}/{capture}"}}, 0
request = function() n = n + 1 return wrk.format("GET", paths[n % 2 + 1]) end
""")
    wrk = ["wrk", "-t1", "--latency", f"-d{options.seconds + 2 * SETTLE_SECONDS:.0f}s"]
    many = f"-c{options.connections}"
    return {
        NONE: [],
        "burner": [BURN, BURN],
        "healthz": [[*wrk, many, f"{server.observe}/healthz"]],
        AGAIN: [],
        "list and get": [[*wrk, many, "-s", script, server.url]],
        "metrics": [[*wrk, "-c1", f"{server.observe}/metrics"]],
    }


def rows(found):
    for name, intervals in found.items():
        def middle(key, intervals=intervals):
            return statistics.median(interval[key] for interval in intervals)
        ratios = [[2 * now[key] / (one[key] + other[key]) for now, one, other in zip(intervals, found[NONE], found[AGAIN])]
                  for key in ("rx", "captured")]
        p99 = sorted(intervals, key=lambda interval: interval["requests"])[len(intervals) // 2]["p99"]
        yield (name, f"{middle('requests'):.0f}", p99, f"{middle('rx') / 1e6:.2f}", f"{middle('captured') / 1e6:.2f}",
               f"{middle('lost'):.2%}", *map(spread, ratios))


def measure(server, options):
    capture = server.create()
    server.running(capture)
    for _ in range(LISTED):
        # Discarded, they fail.
        short = server.ask("POST", "", {"system": "magic-transit", "type": "simple", "time_limit": 1, "packet_limit": 1})
        server.ended(short["id"])
    turns = loads(server, capture, options)
    found = {name: [] for name in turns}
    for _ in range(options.runs):
        for name, commands in turns.items():
            found[name].append(interval(server, capture, options, commands))
            note(f"{name} {found[name][-1]}")
    server.stop(capture)
    ledger = server.ended(capture)["ledger"]
    if ledger["captured"] or not ledger["dropped"]["spool"]:
        raise Failed(f"what is discarded must end as dropped.spool: {ledger}")
    return table("load | requests/s | p99 | received Mpps | captured Mpps | not captured | received against none (min – max) "
                 "| captured against none", rows(found))


def run(options):
    host, binary = Host("wrk"), trawl()
    options.loader = host.main if len(host.cores) == 2 else host.cores[1]
    os.sched_setaffinity(0, {host.main})
    say(f"{options.runs} rounds of six intervals of {options.seconds:g} s")
    with folder() as work:
        path = frames.write(work / "frames.pcap", options.size)
        sections = replay(host, path, "256MiB", {"bytes_max": "1GiB", "write": "discard"}, capture={"simple_interval_seconds": 0},
                          api={"requests_per_second_max": 1_000_000})
        with served(binary, work, sections) as server:
            found = measure(server, options)
    keep("api", "The API under load", f"""\
One capture takes every frame ({options.size}, 2000 of them, `net_pcap`, `infinite_rx=1`) for the whole run; {options.runs} rounds of one interval of
{options.seconds:g} s each, in turn; medians, and of the ratios to the same round's mean without load also the least and the largest. The worker
polls on core {host.poll} alone; writer, runtime and API have core {host.main}, wrk and the burners core {options.loader}. `write = "discard"`: every frame is matched
and copied into blocks, which the writer takes and gives back; there is no disk in this. Every reading's ledger added up.""",
         found, options.command, dpdk(host.memory))
