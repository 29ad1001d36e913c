"""How trawl scales: one worker with its writer, two, four, ..., as many as the machine's cores allow.

  port      what the workers receive when one capture rejects every frame (net_pcap, infinite_rx, one queue for each worker)
  memory    one capture of everything whose blocks the writers throw away
  noport    memory with a port that makes frames without copying them (net_null): workers and rings alone
  disk      one capture of everything to the disk, merge and delivery wait until it ends
  whole     the same with segments of 256 MiB, so that merge and delivery to file:// on the same disk run beside it
  shm       whole on a file system in memory
  deliver   one capture from its end to its success, on a file system in memory if there is one: merge, hashes, objects, manifest
  merge     `trawl merge` of the same segments into one file

Workers have physical cores of their own; writers, merge and delivery have others. benches/scale/bundle makes a folder of this bench
that runs without network and installation: `benches/run scale --bundle` builds that and measures nothing.
"""

import contextlib
import datetime
import json
import os
import pathlib
import subprocess
import sys
import time

from . import Failed, capture, frames, scale_table
from .appliance import Appliance, check
from .machine import ROOT, cores, done, folder, free_gib, hardware, note, say, stolen, trawl
from .results import keep
from .scale_host import Layout, copy_rate, huge_free, in_memory, mounted, nodes, physical_cores, reserved_hugepages

# In the order of their worth: where the time is short, the last get fewer runs.
STAGES = "memory whole shm deliver disk noport"
ALL = "64 imix 1518"
SIZES = {"memory": ALL, "whole": ALL, "shm": ALL, "deliver": "imix", "disk": ALL, "noport": "64"}
OPTIONS = {
    "runs": (3, "of each point, in turn"),
    "seconds": (0.4, "of each measurement"),
    "minutes": (5.5, "after which no further point begins"),
    "workers": ("", "how many, such as '1 2 4'; as far as the cores go"),
    "stages": (STAGES, "which ones; memory brings port, deliver brings merge"),
    "sizes": ("", "of frames, with FCS; each stage has its own"),
    "frames": (2000, "in each queue's file; fewer where the caches do not hold the files of all queues"),
    "dir": (str(ROOT / "benches/results/raw"), "which disk is measured"),
    "out": (os.environ.get("OUT", ""), "folder for scale.md and scale.jsonl; benches/results/ otherwise"),
    "binary": ("", "the trawl to measure; a release build otherwise"),
    "drivers": ("", "DPDK's drivers by file name; what DPDK was built with otherwise"),
    "about": ("", "what the binary is, for the table"),
    "no-huge": (False, "ordinary pages, although there are hugepages"),
    "bundle": (False, "make target/scale-bundle, and measure nothing"),
}
BLOCKS_MIB = 256
# Of a file system in memory for each worker; a capture ends where the spool's part is full.
MEMORY_GIB = 6
DELIVERED_BYTES = 1 << 30
DELIVER_SECONDS = 60


def eal_mib(count):
    return 128 + 64 * count


class Scale:
    """What all points share: the options, the frames' files, and where results go."""

    def __init__(self, options, work, memory, binary, huge):
        self.options, self.work, self.memory, self.binary, self.huge = options, work, memory, binary, huge
        self.allowed = cores()
        self.deadline = time.monotonic() + options.minutes * 60
        self.failures = {}
        self.frames = {}
        self.rows = []
        self.log = (pathlib.Path(options.out) if options.out else work) / "scale.jsonl"

    def write(self, row):
        self.rows.append(row)
        with open(self.log, "a", encoding="ascii") as out:
            print(json.dumps(row), file=out)
        print(json.dumps(row), file=sys.stderr, flush=True)

    def device(self, stage, size, count):
        if stage == "noport":
            return f"net_null0,size={int(size) - 4}"
        if size not in self.frames:
            self.frames[size] = frames.write(self.work / f"{size}.pcap", size, self.options.frames)
        return f"net_pcap0{f',rx_pcap={self.frames[size]}' * count},infinite_rx=1"

    def sections(self, stage, size, layout, where):
        count = len(layout.workers)
        eal = ["--no-pci", *(word for name in self.options.drivers.split() for word in ("-d", name))]
        eal += ["-m", str(eal_mib(count)), *(["--in-memory"] if self.huge else ["--no-huge"])]
        # A file system in memory allocates a segment when it is begun, so those of a delivery are just large enough.
        segment = {"whole": 256, "shm": 256, "deliver": 256 + 2048 // count}.get(stage, 4096)
        spool = {"bytes_max": f"{max(8, free_gib(where) * 3 // 4)}GiB", "segment_bytes": f"{segment}MiB", "rotate_seconds": 3600,
                 "pool_bytes": 0, "write": "discard" if stage in ("memory", "noport") else "auto"}
        return {
            "dpdk": {"eal": eal},
            "[port": {"device": self.device(stage, size, count), "queues": count},
            "cores": {"workers": layout.workers, "writers": layout.writers},
            "blocks": {"bytes_max": f"{BLOCKS_MIB * count}MiB", "hugepages": "auto" if self.huge else "never"},
            "spool": spool,
            # With few files open at once, because 1024 is what many machines allow.
            "capture": {"full_per_account": 2, "captures_max": 2},
            "upload": {"deliveries_max": 4},
            "api": {"connections_max": 32},
        }

    @contextlib.contextmanager
    def server(self, stage, size, layout):
        where = self.memory if self.memory and stage in ("shm", "deliver") else self.work
        with folder(where) as work:
            server = Appliance(self.binary, work, self.sections(stage, size, layout, where))
            # From here on this program leaves the workers' cores alone.
            os.sched_setaffinity(0, set(self.allowed) - set(layout.workers))
            try:
                yield server
            finally:
                server.kill()
                os.sched_setaffinity(0, self.allowed)

    def point(self, stage, size, layout):
        """Figures by name of stage."""
        with self.server(stage, size, layout) as server:
            if stage == "deliver":
                return deliver(server, self.binary, len(layout.workers))
            figures = {}
            if stage == "memory":
                rejecting = server.create(filter_v1=capture.REJECTING[0])
                figures["port"] = window(server, rejecting, layout, self.options.seconds)
                server.stop(rejecting)
                server.ended(rejecting, 20)
            everything = server.create()
            figures[stage] = window(server, everything, layout, self.options.seconds)
            return figures

    def room(self, stage, count):
        """Why a stage cannot run here, or nothing."""
        if stage == "shm" and not self.memory:
            return "there is no file system in memory with enough room"
        where = self.memory if stage in ("shm", "deliver") and self.memory else self.work
        needed = 9 + count if where == self.work else MEMORY_GIB + MEMORY_GIB * count // 2
        if stage not in ("memory", "noport") and free_gib(where) < needed:
            return f"{where} has {free_gib(where)} GiB free, and {count} workers need {needed}"
        return ""

    def measure(self, stage, size, layout, run):
        count = len(layout.workers)
        row = {"stage": stage, "size": size, "workers": count, "writers": len(layout.writers), "run": run}
        if self.failures.get((stage, count), 0) > 1 or time.monotonic() > self.deadline:
            return
        if why := self.room(stage, count):
            self.failures[stage, count] = 2
            self.write({**row, "left_out": why})
            return
        before, began = sum(map(stolen, layout.workers)), time.monotonic()
        try:
            found = self.point(stage, size, layout)
        except (Failed, OSError) as failure:
            self.failures[stage, count] = self.failures.get((stage, count), 0) + 1
            self.write({**row, "error": str(failure)[-1000:]})
            return
        passed = time.monotonic() - began
        share = (sum(map(stolen, layout.workers)) - before) / passed / count
        for name, figures in found.items():
            self.write({**row, "stage": name, "figures": {**figures, "stolen": round(share, 4)}, "point_seconds": round(passed, 2)})

    def layouts(self):
        wanted = [int(word) for word in self.options.workers.split()] or [1 << n for n in range(7)]
        found = [layout for layout in (Layout(count, self.allowed) for count in wanted) if layout.fits()]
        if not found:
            raise Failed(f"no count of {wanted} fits {len(self.allowed)} cores")
        return found

    def probe(self, layout):
        """Starts the largest server: a container can have hugepages that it must not use."""
        try:
            with self.server("noport", "64", layout):
                return
        except Failed as failure:
            if not self.huge:
                raise
            note(f"no hugepages then: {str(failure)[-500:]}")
        self.huge = False
        self.probe(layout)

    def run(self, layouts):
        for stage in self.options.stages.split():
            if stage not in SIZES:
                raise Failed(f"--stages: there is no {stage}; there are: {STAGES}")
            say(f"{stage}; {max(0, self.deadline - time.monotonic()):.0f} s are left")
            for run in range(1, self.options.runs + 1):
                for size in (self.options.sizes or SIZES[stage]).split():
                    for layout in layouts:
                        if (stage, size) != ("noport", "imix"):
                            self.measure(stage, size, layout, run)


def window(server, name, layout, seconds):
    """What one capture does in some seconds, from two readings of its ledger, which must both balance."""
    server.wait_for(lambda: server.progress(name)["ledger"]["rx"], 20, "nothing was received")
    time.sleep(capture.WARM_UP_SECONDS)
    (t1, a, busy1), _, (t2, b, busy2) = reading(server, name), time.sleep(seconds), reading(server, name)
    passed = t2 - t1
    rate = {key: round((b[key] - a[key]) / passed) for key in ("rx", "captured", "captured_bytes")}
    dropped = {key: count - a["dropped"].get(key, 0) for key, count in b["dropped"].items() if count != a["dropped"].get(key, 0)}
    lost = sum(count for count in b["port"].values() if not isinstance(count, (bool, dict)))
    lost -= sum(count for count in a["port"].values() if not isinstance(count, (bool, dict)))
    busy = {kind: round((busy2[kind] - busy1[kind]) / passed / count, 3)
            for kind, count in (("worker", len(layout.workers)), ("writer", len(layout.writers)))}
    return {"seconds": round(passed, 3), "rx_pps": rate["rx"], "pps": rate["captured"],
            "bytes_s": rate["captured_bytes"] + 16 * rate["captured"], "dropped": dropped, "lost_in_port": lost, "busy": busy}


def reading(server, name):
    before = time.monotonic()
    ledger = capture.ledger(server, name)
    return (before + time.monotonic()) / 2, ledger, capture.cpu_seconds(server.process.pid)


def deliver(server, binary, queues):
    """One capture of a fixed size, from its end to its success, and `trawl merge` of the same segments."""
    name, kept = server.create(byte_limit=DELIVERED_BYTES), server.work / "kept"
    kept.mkdir()

    def over():
        progress = server.progress(name)
        return progress["status"] not in ("pending", "running") and progress["ledger"]["rx"]
    server.wait_for(over, DELIVER_SECONDS, "the capture does not end")
    began = time.monotonic()
    links = keep_segments(server, kept, queues)
    progress = server.ended(name, DELIVER_SECONDS)
    seconds = time.monotonic() - began
    if progress["status"] != "success":
        raise Failed(f"the delivery failed: {progress}")
    ledger = check(progress["ledger"])
    server.verify(name)
    size = ledger["captured_bytes"] + 16 * ledger["captured"]
    server.remove_objects()
    found = {"deliver": {"seconds": round(seconds, 3), "bytes_s": round(size / seconds),
                         "pps": round(ledger["captured"] / seconds), "dropped": {k: v for k, v in ledger["dropped"].items() if v}}}
    if len(links) >= queues:
        found["merge"] = merge(binary, links, server.work / "merged.pcap")
    return found


def keep_segments(server, kept, queues):
    """Links of the queues' segments, one each, taken before the delivery frees them."""
    links, deadline = {}, time.monotonic() + 2
    while len(links) < queues and time.monotonic() < deadline:
        for path in server.spool.rglob("q*.pcap"):
            with contextlib.suppress(OSError):
                os.link(path, kept / path.name)
                links[path.name] = kept / path.name
        time.sleep(0.005)
    return sorted(links.values())


def merge(binary, inputs, output):
    size, began = sum(path.stat().st_size for path in inputs), time.monotonic()
    child = subprocess.Popen([binary, "merge", "-o", output, *inputs], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds, child.returncode = time.monotonic() - began, status
    if status:
        raise Failed(f"trawl merge ended with status {status}")
    return {"seconds": round(seconds, 3), "bytes_s": round(size / seconds), "streams": len(inputs),
            "cores": round((usage.ru_utime + usage.ru_stime) / seconds, 2)}


def about(scale, layouts, copies):
    """Sentences on the machine."""
    physical, limit = physical_cores(scale.allowed), pathlib.Path("/sys/fs/cgroup/cpu.max")
    quota = limit.read_text(encoding="ascii").split()[0] if limit.is_file() else "max"
    where = [f"{path} is {' '.join(mounted(path))}, {free_gib(path)} GiB free" for path in (scale.work, scale.memory) if path]
    memory = "hugepages" if scale.huge else "ordinary pages"
    return [
        "; ".join([*hardware(), *filter(None, [scale.options.about]), f"DPDK's memory and blocks on {memory}"]) + ".",
        f"{len(scale.allowed)} CPUs may be used: {len(physical)} physical cores on {len(set(nodes().values())) or 1} NUMA nodes"
        f"{'' if quota == 'max' else f', of which a cgroup allows {quota} µs in a period'}.",
        *(f"{len(layout.workers)}: {layout.words()}." for layout in layouts),
        "Plain copy (memmove of 128 MiB, one process a core): " +
        ", ".join(f"{count} cores {rate:.1f} GB/s" for count, rate in copies.items()) + ".",
        "; ".join(where) + ".",
    ]


def finish(scale, options, sentences):
    text = scale_table.text(scale.rows)
    facts_text = "\n".join(f"- {sentence}" for sentence in sentences)
    if not options.out:
        keep("scale", "How trawl scales with its workers", facts_text, text, options.command)
        return
    now = datetime.datetime.now(datetime.timezone.utc)
    whole = f"# How trawl scales with its workers, {now:%Y-%m-%d}\n\n{facts_text}\n\n{text}\nCommand: `{options.command}`\n"
    (pathlib.Path(options.out) / "scale.md").write_text(whole, encoding="utf-8")
    print(whole, end="", flush=True)


def run(options):
    if options.bundle:
        done(ROOT / "benches/scale/bundle", words="the bundle cannot be made")
        return 0
    binary = options.binary or trawl()
    if options.out:
        pathlib.Path(options.out).mkdir(parents=True, exist_ok=True)
        (pathlib.Path(options.out) / "scale.jsonl").unlink(missing_ok=True)
    most = max((count for count in (1 << n for n in range(7)) if Layout(count, cores()).fits()), default=1)
    wanted = (eal_mib(most) + BLOCKS_MIB * most) // 2 + 64
    with contextlib.ExitStack() as stack:
        huge = not options.no_huge and stack.enter_context(reserved_hugepages(wanted))
        note(f"{wanted} hugepages of 2 MiB wanted, {huge_free()} free")
        memory = stack.enter_context(in_memory(MEMORY_GIB + MEMORY_GIB * most))
        scale = Scale(options, stack.enter_context(folder(options.dir)), memory, binary, huge)
        layouts = scale.layouts()
        scale.probe(layouts[-1])
        copies = {}
        for count in sorted({len(layout.workers) for layout in layouts} | {len(scale.allowed)}):
            copies[count] = copy_rate([cpu for cpus in zip(*physical_padded(scale.allowed)) for cpu in cpus if cpu is not None][:count])
        sentences = about(scale, layouts, copies)
        for sentence in sentences:
            note(sentence)
        scale.write({"machine": sentences, "copy_gb_s": copies})
        try:
            scale.run(layouts)
        finally:
            finish(scale, options, sentences)
    return 1 if any("error" in row for row in scale.rows) else 0


def physical_padded(allowed):
    """Cores as lists of equal length, so that first siblings come first."""
    found = list(physical_cores(allowed).values())
    longest = max(map(len, found))
    return [core + [None] * (longest - len(core)) for core in found]
