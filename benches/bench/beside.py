"""What delivery costs a capture: the capture alone, with delivery beside it, and delivery alone, in turn, on one file system.

  after     one segment that is larger than the run: merge and delivery wait until the capture has ended
  beside    segments of --segment-mib: merge and delivery to file:// on the same disk run while the capture does
  unpaced   the same with deliveries that never stand back (upload.wait_percent = 100)
  alone     one capture of --alone-gib, from its end to its success
  one, two  the same in segments of --segment-mib, one object or two at once, on as many cores beside the worker's if there are; the
            bucket is away until the capture has ended

net_pcap with infinite_rx offers more than any disk takes, so the capture always wants all of it. Threads' CPU time, the disk's bytes
and the time in which delivery stood back are counted over the same time. `--binaries "before=PATH after=PATH"` compares two builds in
one run. Every ledger is checked.
"""

import json
import os
import pathlib
import statistics
import sys
import time
import urllib.request

from . import Failed, capture, frames
from .appliance import START_SECONDS, Appliance, replay
from .machine import Host, ROOT, dpdk, file_system, folder, free_gib, say, trawl
from .results import keep, spread, table

OPTIONS = {
    "runs": (3, "of each point, in turn"),
    "seconds": (3.0, "of each measurement"),
    "warm-up": (1.0, "seconds of capture before it"),
    "sizes": ("64 imix 1518", "of frames, with FCS"),
    "stages": ("after beside unpaced alone one two", "which ones"),
    "segment-mib": (256, "segments of beside and unpaced"),
    "alone-gib": (1, "of the capture of alone"),
    "spool-gib": (20, "quota; less where the disk has less"),
    "write": ("auto", "spool.write"),
    "config": ("", "further sections, as JSON: {section: {key: value}}"),
    "binaries": ("", "NAME=PATH of each build; a release build otherwise"),
    "dir": (str(ROOT / "benches/results/raw"), "which file system is measured"),
    "no-table": (False, "rows alone, on standard error"),
}
AT_ONCE = {"one": 1, "two": 2}
KINDS = ("worker", "writer", "publisher", "merge", "seal", "tokio", "trawl")
SECTOR = 512


def threads(process):
    """CPU seconds of the process by the beginning of its threads' names."""
    spent = dict.fromkeys(KINDS, 0.0)
    for task in pathlib.Path(f"/proc/{process}/task").iterdir():
        try:
            name, fields = (task / "stat").read_text().split("(", 1)[1].rsplit(") ", 1)
        except OSError:
            continue
        for kind in KINDS:
            if name.startswith(kind):
                spent[kind] += sum(int(field) for field in fields.split()[11:13]) / capture.TICKS
                break
    return spent


def disk(path):
    """Bytes read from and written to the device below a path."""
    number = os.stat(path).st_dev
    try:
        words = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text().split()
    except OSError:
        return 0, 0
    return int(words[2]) * SECTOR, int(words[6]) * SECTOR


def metrics(server):
    with urllib.request.urlopen(f"{server.observe}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}


class Beside:
    """What all points share."""

    def __init__(self, options, host, work):
        self.options, self.host, self.work = options, host, work
        named = dict(word.split("=", 1) for word in options.binaries.split())
        self.binaries = named or {"trawl": trawl()}
        self.gib = min(options.spool_gib, free_gib(work) * 2 // 3)
        if self.gib < 8:
            raise Failed(f"{options.dir} has too little free space: 12 GiB are needed, --dir names another place")

    def sections(self, stage, path):
        # Where a segment is larger than all that is written, nothing is published before the end.
        segment = self.options.segment_mib if stage not in ("after", "alone") else self.gib << 10
        spool = {"bytes_max": f"{self.gib}GiB", "segment_bytes": f"{segment}MiB", "rotate_seconds": 3600, "write": self.options.write}
        sections = replay(self.host, path, "256MiB", spool)
        if stage == "unpaced":
            sections["upload"] = {"allow_file": True, "wait_percent": 100}
        if stage in AT_ONCE:
            at_once = AT_ONCE[stage]
            sections["cores"]["delivery"] = [core for core in self.host.cores if core != self.host.poll][:at_once]
            sections["upload"] = {"allow_file": True, "objects_in_flight": at_once, "retry_pause_ms_max": 100}
        for name, keys in json.loads(self.options.config or "{}").items():
            sections[name] = {**sections.get(name, {}), **keys}
        return sections

    def window(self, server):
        """What one capture, its delivery and the disk do in the time."""
        everything = server.create()
        server.wait_for(lambda: server.progress(everything)["ledger"]["rx"], START_SECONDS, "nothing was received")
        time.sleep(self.options.warm_up)
        process = server.process.pid

        def reading():
            return capture.reading(server, [everything]), metrics(server), threads(process), disk(self.work)
        (t1, rx1, packets1, bytes1), counts1, spent1, disk1 = reading()
        time.sleep(self.options.seconds)
        (t2, rx2, packets2, bytes2), counts2, spent2, disk2 = reading()
        passed = t2 - t1
        grown = {name: counts2[name] - counts1.get(name, 0) for name in counts2}
        figures = {"pps": (packets2 - packets1) / passed, "rx_pps": (rx2 - rx1) / passed, "bytes_s": (bytes2 - bytes1) / passed,
                   "merged_s": grown.get("trawl_merge_bytes_total", 0) / passed,
                   "stood_back": grown.get("trawl_delivery_stood_back_seconds_total", 0) / passed,
                   "read_s": (disk2[0] - disk1[0]) / passed, "written_s": (disk2[1] - disk1[1]) / passed}
        figures |= {f"cpu_{kind}": round((spent2[kind] - spent1[kind]) / passed, 3) for kind in KINDS}
        return {name: round(value, 3) for name, value in figures.items()}

    def alone(self, server):
        size = self.options.alone_gib << 30
        limited = server.create(byte_limit=size)
        server.wait_for(lambda: server.progress(limited)["ledger"]["captured_bytes"] >= size * 0.99, 60, "the capture does not end")
        before, began = metrics(server)["trawl_merge_bytes_total"], time.monotonic()
        server.ended(limited)
        passed = time.monotonic() - began
        return {"merged_s": round((metrics(server)["trawl_merge_bytes_total"] - before) / passed, 1)}

    def at_once(self, server):
        """Delivery of what lies in the spool, from the moment in which its bucket is there."""
        size, away = self.options.alone_gib << 30, server.bucket.with_name("away")
        limited = server.create(byte_limit=size)
        server.bucket.rename(away)
        server.bucket.write_text("")
        server.wait_for(lambda: server.progress(limited)["status"].startswith("conversion"), 60, "the capture does not end")
        server.bucket.unlink()
        away.rename(server.bucket)
        before, began = metrics(server)["trawl_merge_bytes_total"], time.monotonic()
        server.ended(limited)
        passed = time.monotonic() - began
        return {"merged_s": round((metrics(server)["trawl_merge_bytes_total"] - before) / passed, 1)}

    def one(self, binary, stage, size, path):
        # What an earlier point left in the page cache is not written during this one.
        os.sync()
        with folder(self.work) as work:
            server = Appliance(binary, work, self.sections(stage, path))
            try:
                if stage in AT_ONCE:
                    return self.at_once(server)
                return self.alone(server) if stage == "alone" else self.window(server)
            finally:
                server.kill()

    def run(self):
        rows = []
        for size in self.options.sizes.split():
            path = frames.write(self.work / f"{size}.pcap", size)
            for run in range(self.options.runs):
                for stage in self.options.stages.split():
                    for name, binary in self.binaries.items():
                        row = {"size": size, "run": run + 1, "stage": stage, "build": name}
                        row["figures"] = self.one(binary, stage, size, path)
                        rows.append(row)
                        print(json.dumps(row), file=sys.stderr, flush=True)
        return rows


def text(rows):
    """One line for each size and build."""
    def values(figure, scale, **of):
        found = [row["figures"][figure] / scale for row in rows if of.items() <= row.items() and figure in row["figures"]]
        return found or [float("nan")]
    lines = []
    for size, build in dict.fromkeys((row["size"], row["build"]) for row in rows):
        of = {"size": size, "build": build}
        after = values("pps", 1e6, stage="after", **of)
        line = [size, build, spread(after, 2)]
        for stage in ("beside", "unpaced"):
            beside = values("pps", 1e6, stage=stage, **of)
            line += [spread(beside, 2), f"{statistics.median(beside) / statistics.median(after):.2f}",
                     f"{statistics.median(values('merged_s', 1e9, stage=stage, **of)):.2f}"]
        stood = statistics.median(values("stood_back", 1, stage="beside", **of))
        alone, one, two = (values("merged_s", 1e9, stage=stage, **of) for stage in ("alone", "one", "two"))
        ratio = statistics.median(two) / statistics.median(one)
        lines.append([*line, f"{stood:.2f}", spread(alone, 2), spread(one, 2), spread(two, 2), f"{ratio:.2f}"])
    return table("frames | build | alone, Mpps | delivery beside, Mpps | ratio | delivered meanwhile, GB/s | beside, never standing back, "
                 "Mpps | ratio | delivered meanwhile, GB/s | share of time that it stood back | delivery alone, GB/s | by one thread, GB/s | by two | ratio", lines)


def run(options):
    host = Host("dpdk-dev")
    with folder(options.dir) as work:
        say(f"{options.runs} runs of {options.seconds:g} s each at: {options.sizes}")
        rows = Beside(options, host, work).run()
        if not options.no_table:
            keep("beside", "What delivery costs a capture", f"""\
Medians (smallest – largest) of runs that alternate; `net_pcap`, `infinite_rx=1`, one polling core, one other core for writer, merge and
delivery; one capture of everything to `file://` on the disk of the spool ({file_system(work)[0]}).""", text(rows), options.command,
                 dpdk(host.memory), file_system(work)[1])
