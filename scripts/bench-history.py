#!/usr/bin/env python3
"""The work of bench-history.sh, which prepares what this needs: a worker's rate with and without history, in turn.

Python's standard library only.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

sys.dont_write_bytecode = True
from appliance import Failed, replay, served  # noqa: E402

SETTLE_SECONDS = 0.5
# Nothing that make-frames.py makes is TCP.
TAKES_NOTHING = {"protocol": 6}
WORKS = ("nothing", "one filter")


def pace(trawl, seconds):
    """Frames a second, by the workers' own counts."""
    time.sleep(SETTLE_SECONDS)
    t1, a = time.monotonic(), trawl.received()
    time.sleep(seconds)
    t2, b = time.monotonic(), trawl.received()
    return (b - a) / (t2 - t1)


def kept(trawl):
    """Bytes of the history's files, which are there once the process has ended."""
    return sum(path.stat().st_size for path in (trawl.spool / "history").iterdir())


def one(arguments, size, work, history):
    """What one server receives with each work, and the bytes that its history has in the end."""
    work.mkdir(mode=0o700)
    sections = replay(arguments, size, "256MiB", {"bytes_max": "2GiB"}, history={"enabled": history})
    with served(arguments.trawl, work, sections) as trawl:
        figures = [pace(trawl, arguments.seconds)]
        capture = trawl.create(filter_v1=TAKES_NOTHING)
        trawl.running(capture)
        figures.append(pace(trawl, arguments.seconds))
        ledger = trawl.progress(capture)["ledger"]
        if ledger["matched"] or not ledger["unmatched"]:
            raise Failed(f"the filter must take nothing: {ledger}")
        trawl.stop(capture)
        trawl.ended(capture)
    return figures, kept(trawl) if history else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("trawl", "work", "memory", "sizes"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("worker", "writer", "runs"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.writer})
    print("| frames | work | without Mpps | with history Mpps | with / without (min – max) |\n|---|---|---|---|---|")
    try:
        for size in arguments.sizes.split():
            rounds = []
            for run in range(arguments.runs):
                pair = []
                # Whoever comes first changes, so that a drift falls on both.
                for history in (False, True) if run % 2 == 0 else (True, False):
                    work = pathlib.Path(arguments.work) / f"{size}-{run}-{history}"
                    figures, kept_bytes = one(arguments, size, work, history)
                    if history and not kept_bytes:
                        raise Failed("nothing is in the history")
                    pair.append((history, figures))
                    print(size, history, figures, kept_bytes, file=sys.stderr)
                rounds.append([figures for _, figures in sorted(pair)])
            for index, name in enumerate(WORKS):
                without, history = ([figures[which][index] for figures in rounds] for which in (0, 1))
                ratios = [b / a for a, b in zip(without, history)]
                print(f"| {size} | {name} | {statistics.median(without) / 1e6:.2f} | {statistics.median(history) / 1e6:.2f} "
                      f"| {statistics.median(ratios):.3f} ({min(ratios):.3f} – {max(ratios):.3f}) |", flush=True)
    except Failed as failure:
        sys.exit(f"error: {failure}")


if __name__ == "__main__":
    main()
