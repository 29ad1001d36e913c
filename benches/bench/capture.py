"""One measurement of the stages: a server, its captures of a filter set, and what they took per second and threads spent on it.

Every ledger's equations are checked at both readings. The server is killed in the end: the figures are known, and nobody waits for
the merge. Where one capture takes all and files are written, capinfos counts a segment.
"""

import os
import pathlib
import subprocess
import time

from . import Failed
from .appliance import START_SECONDS, Appliance, check

WARM_UP_SECONDS = 0.3
CLOSE_SECONDS = 60
TICKS = os.sysconf("SC_CLK_TCK")

# All source addresses that `frames` makes lie in 198.18.0.0/16.
REJECTING = [{"source_address": f"10.0.0.{n}", "destination_port": 443, "protocol": 6} for n in range(64)]
SPLIT = [{"source_address": f"198.18.{4 * n}.0/22"} for n in range(64)]
FILTERS = {"all": [{}], "noport": [{}], "filter1": [{"source_address": "198.18.0.0/16"}], "reject64": REJECTING, "split64": SPLIT,
           "snap160": REJECTING[:1], "sample10": REJECTING[:1]}


def ledger(server, capture):
    progress = server.progress(capture)
    if progress["status"] != "running":
        raise Failed(f"the capture ended during the measurement: {progress}")
    return progress["ledger"]


def reading(server, captures):
    """Moment, packets received, packets and bytes captured over all captures."""
    # Each ledger has a moment of its own; over 64 of them the moments differ by some milliseconds in both readings alike.
    before = time.monotonic()
    ledgers = [ledger(server, capture) for capture in captures]
    moment = (before + time.monotonic()) / 2
    return moment, ledgers[0]["rx"], sum(x["captured"] for x in ledgers), sum(x["captured_bytes"] for x in ledgers)


def cpu_seconds(process):
    """By kind of thread, what the server's data plane has spent."""
    spent = {"worker": 0.0, "writer": 0.0}
    for task in pathlib.Path(f"/proc/{process}/task").iterdir():
        name, fields = (task / "stat").read_text().split("(", 1)[1].rsplit(") ", 1)
        for kind in spent:
            if name.startswith(kind):
                spent[kind] += sum(int(field) for field in fields.split()[11:13]) / TICKS
    return spent


def check_file(server, capture):
    """Stops the capture, and holds the number that capinfos finds in its segment against the ledger."""
    server.stop(capture)
    kept = server.work / "sample.pcap"

    def linked():
        try:
            os.link(next(iter(sorted(server.spool.rglob("q*.pcap"))), ""), kept)
            return True
        except OSError:
            return False
    server.wait_for(linked, CLOSE_SECONDS, "no segment was published")
    captured = check(server.ask("GET", f"/{capture}/progress")["ledger"])["captured"]
    server.kill()
    answer = subprocess.run(["capinfos", "-M", "-T", "-r", "-c", kept], capture_output=True, text=True, check=True)
    kept.unlink()
    counted = int(answer.stdout.split()[-1])
    if counted != captured:
        raise Failed(f"the ledger says {captured} packets, capinfos counts {counted}")
    return counted


def measure(server, filters, seconds):
    captures = [server.create(filter_v1=filter_v1) for filter_v1 in FILTERS[filters]]
    for capture in captures:
        server.wait_for(lambda capture=capture: server.progress(capture)["ledger"]["rx"], START_SECONDS, "nothing was received")
    time.sleep(WARM_UP_SECONDS)
    before = cpu_seconds(server.process.pid)
    t1, rx1, packets1, bytes1 = reading(server, captures)
    time.sleep(seconds)
    t2, rx2, packets2, bytes2 = reading(server, captures)
    spent = {kind: after - before[kind] for kind, after in cpu_seconds(server.process.pid).items()}
    passed, packets, size = t2 - t1, packets2 - packets1, bytes2 - bytes1
    # 16 bytes of record header on disk for each.
    written = size + 16 * packets
    figures = {"rx_pps": round((rx2 - rx1) / passed), "pps": round(packets / passed), "bps": round(size * 8 / passed),
               "bytes_s": round(written / passed), "not_captured": round(max(0, 1 - packets / (rx2 - rx1)), 4)}
    if packets:
        figures.update({f"{kind}_core_s_per_gb": round(value / written * 1e9, 3) for kind, value in spent.items()})
    if filters == "all" and (any(server.spool.rglob("q*.pcap")) or any(server.spool.rglob(".q*.open"))):
        figures["capinfos"] = check_file(server, captures[0])
    return figures


def figures_of(binary, work, sections, filters, seconds):
    server = Appliance(binary, work, sections)
    try:
        return measure(server, filters, seconds)
    finally:
        server.kill()
