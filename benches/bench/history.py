"""What the history's sampler costs a worker.

Servers with and without `[history]` (its defaults: 1 in 1000) take turns on a net_pcap device that always has frames; ratios are of
neighbours in one run.

  nothing    no capture: the worker receives and counts, which is the least that it can do and so the most that 1 % can be
  one filter a capture whose filter takes none of the frames: the worker parses and matches each
"""

import os
import statistics
import time

from . import Failed, frames
from .appliance import replay, served
from .machine import Host, dpdk, folder, note, say, trawl
from .results import keep, spread, table

OPTIONS = {
    "runs": (7, "rounds"),
    "seconds": (3.0, "of each measurement"),
    "sizes": ("64 imix", "of frames, with FCS"),
    "dir": ("", "where spool and history are; else a temporary folder"),
}
SETTLE_SECONDS = 0.5
# Nothing that `frames` makes is TCP.
TAKES_NOTHING = {"protocol": 6}
WORKS = ("nothing", "one filter")


def pace(server, seconds):
    """Frames a second, by the workers' own counts."""
    time.sleep(SETTLE_SECONDS)
    t1, a = time.monotonic(), server.received()
    time.sleep(seconds)
    t2, b = time.monotonic(), server.received()
    return (b - a) / (t2 - t1)


def kept(server):
    """Bytes of the history's files, which are there once the process has ended."""
    return sum(path.stat().st_size for path in (server.spool / "history").iterdir())


def one(binary, sections, work, seconds):
    """What one server receives with each work, and the bytes that its history has in the end."""
    work.mkdir(mode=0o700)
    with served(binary, work, sections) as server:
        figures = [pace(server, seconds)]
        capture = server.create(filter_v1=TAKES_NOTHING)
        server.running(capture)
        figures.append(pace(server, seconds))
        ledger = server.progress(capture)["ledger"]
        if ledger["matched"] or not ledger["unmatched"]:
            raise Failed(f"the filter must take nothing: {ledger}")
        server.stop(capture)
        server.ended(capture)
    if not sections["history"]["enabled"]:
        return figures
    if not kept(server):
        raise Failed("nothing is in the history")
    return figures


def measure(options, host, binary, work):
    rows = []
    for size in options.sizes.split():
        path, rounds = frames.write(work / f"{size}.pcap", size), []
        for run in range(options.runs):
            pair = {}
            # The order changes from round to round, so that a drift falls on both.
            for history in (False, True) if run % 2 == 0 else (True, False):
                sections = replay(host, path, "256MiB", {"bytes_max": "2GiB"}, history={"enabled": history})
                pair[history] = one(binary, sections, work / f"{size}-{run}-{history}", options.seconds)
                note(f"{size} {'with' if history else 'without'} {pair[history]}")
            rounds.append(pair)
        for index, name in enumerate(WORKS):
            without, history = ([pair[which][index] for pair in rounds] for which in (False, True))
            ratios = [b / a for a, b in zip(without, history)]
            rows.append((size, name, f"{statistics.median(without) / 1e6:.2f}", f"{statistics.median(history) / 1e6:.2f}", spread(ratios)))
    return table("frames | work | without Mpps | with history Mpps | with / without (min – max)", rows)


def run(options):
    host, binary = Host(), trawl()
    os.sched_setaffinity(0, {host.main})
    say(f"{options.runs} rounds at: {options.sizes}")
    with folder(options.dir) as work:
        found = measure(options, host, binary, work)
    keep("history", "The history's sampler", f"""\
What one worker receives of `net_pcap`, `infinite_rx=1`, 2000 frames, with `[history]` at its defaults (1 in 1000) and without it; {options.runs}
rounds, in each one server without and one with it, measured for {options.seconds:g} s each; medians, and of the ratios with / without in a
round also the least and the largest. The worker polls on core {host.poll} alone, everything else has core {host.main}.""",
         found, options.command, dpdk(host.memory))
