"""Soak: frames at a steady rate for some minutes while captures start and end all the time.

One capture of 30 s and two of 1 s, each begun again as soon as it is delivered, to a bucket that is a folder. Nothing may be lost,
and neither memory, descriptors, threads nor the spool may grow: medians of the first and of the last third, after a fifth of the
time. Exits with 1 on a loss or on growth, and with 3, after it has said where each process and thread stood, if something hangs.

The sender is that of the load test, whose table says which --rate this host takes without loss: stay below it. What trawl itself
loses is never tolerated: each frame is written six times, to the spool and the bucket by three captures. Needs root and hugepages.
"""

import pathlib
import statistics
import threading
import time

from . import Failed
from .machine import TARGET, dpdk, file_system, folder, note, stolen
from .results import keep, table
from .sender import END_SECONDS, TRIAL_SECONDS, Load, Testpmd

OPTIONS = {
    "minutes": (10.0, "how long"),
    "rate": (50000.0, "frames a second"),
    "size": ("imix", "of frames, with FCS"),
    "ring": (4096, "frames that wait in the port while its worker is away"),
    "loss": (0.0, "share of frames that may find the ring full, where a hypervisor takes the core for longer than the ring lasts"),
    "interval": (10.0, "seconds between two samples"),
    "dir": (str(TARGET / "soak"), "where spool and bucket are"),
}
# What is read before this share of the time has passed belongs to the start.
WARM_UP = 0.2
# From the first third to the last, medians may grow by a share and so many more: allocators and caches breathe.
ALLOWED = {"memory MiB": (0.03, 4), "descriptors": (0.0, 4), "threads": (0.0, 4), "spool MiB": (0.25, 64)}
LONG_SECONDS, SHORT_SECONDS = 30, 1.0


class Soak:
    def __init__(self, options, work, watchdog, generator, server):
        self.options, self.work, self.watchdog, self.generator, self.server = options, work, watchdog, generator, server
        self.over, self.failures, self.captures, self.packets = threading.Event(), [], 0, 0
        self.sent, self.refused, self.took = 0, 0, 1.0
        self.lock = threading.Lock()

    def one(self, seconds, number):
        """A capture of everything, from its start to its objects, which are removed."""
        server, bucket = self.server, self.work / f"bucket-{threading.get_ident()}"
        bucket.mkdir(mode=0o700, exist_ok=True)
        capture = server.create(destination=f"file://{bucket}")
        server.running(capture)
        self.over.wait(seconds)
        server.stop(capture)
        progress = server.ended(capture)
        ledger = progress["ledger"]
        # A burst that was on its way when the stop came is beyond the capture's end, which is no loss.
        lost = sum(ledger["port"].values()) + sum(ledger["dropped"].values()) - ledger["dropped"]["limit"]
        if lost or progress["stop_reason"] != "stop_requested" or (progress["status"] != "success" and ledger["matched"]):
            progress.pop("objects", None)
            raise Failed(f"a capture lost packets or ended by itself: {progress}")
        if progress["status"] == "success" and number % 10 == 0:
            server.verify(capture, bucket)
        for path in bucket.iterdir():
            path.unlink()
        with self.lock:
            self.captures += 1
            self.packets += ledger["captured"]

    def guarded(self, work, *arguments):
        """Runs in a thread of its own; a failure ends the soak at once."""
        try:
            work(*arguments)
        except Exception as failure:  # pylint: disable=broad-except  # shown by the main thread
            self.failures.append(failure)
            self.over.set()

    def loop(self, seconds):
        number = 0
        while not self.over.is_set():
            self.one(seconds, number)
            number += 1

    def offer(self, seconds):
        self.sent, self.refused, self.took = self.generator.send(self.options.size, self.options.rate, seconds, self.over.wait)

    def sample(self):
        if self.server.process.poll() is not None:
            raise Failed(f"trawl ended: {self.server.last_words()}")
        process = pathlib.Path(f"/proc/{self.server.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        kib = sum(int(status.get(name, "0 kB").split()[0]) for name in ("VmRSS", "HugetlbPages"))
        spool = 0
        for path in self.server.spool.rglob("*"):
            try:
                spool += path.stat().st_blocks * 512
            except FileNotFoundError:
                pass  # delivered in the meantime
        return {"memory MiB": kib / 1024, "descriptors": len(list((process / "fd").iterdir())),
                "threads": int(status["Threads"]), "spool MiB": spool / 2**20}

    def run(self):
        """Gives what was read, as (seconds passed, reading), after everything has come to its end."""
        a, seconds, began = self.options, self.options.minutes * 60, time.monotonic()
        self.watchdog.expect(seconds + END_SECONDS, f"the soak of {seconds:.0f} s")
        work = [(self.offer, seconds), *((self.loop, each) for each in (LONG_SECONDS, SHORT_SECONDS, SHORT_SECONDS))]
        threads = [threading.Thread(target=self.guarded, args=each) for each in work]
        for thread in threads:
            thread.start()
        samples = []
        while not self.over.wait(min(a.interval, max(0.1, seconds - (time.monotonic() - began)))):
            passed = time.monotonic() - began
            now = self.sample()
            samples.append((passed, now))
            note(f"{passed:4.0f} s, {self.captures} captures, " + ", ".join(f"{name} {now[name]:.0f}" for name in ALLOWED))
            if passed >= seconds:
                break
        self.over.set()
        self.watchdog.expect(TRIAL_SECONDS, "the delivery of the last captures")
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
        return samples

    def judge(self, samples, steal):
        """What was found, and what is wrong."""
        a, offered = self.options, self.sent + self.refused
        found = f"""\
{self.sent / self.took / 1e6:.3f} Mpps ({a.size}) for {self.took:.0f} s: {self.captures} captures, {self.packets} packets in their files, none lost by
trawl; {self.refused} of {offered} frames did not fit into the ring, while the hypervisor kept {steal:.2f} s from the worker's core.

"""
        wrong = [f"{self.refused} frames were lost in the ring: a lower --rate, or a larger --ring"] \
            if self.refused > a.loss * offered else []
        steady = [now for passed, now in samples if passed >= WARM_UP * a.minutes * 60]
        third, rows = len(steady) // 3, []
        if third == 0:
            raise Failed("fewer than three samples after the start: more --minutes or a shorter --interval")
        for name, (share, more) in ALLOWED.items():
            first, last = (statistics.median(now[name] for now in part) for part in (steady[:third], steady[-third:]))
            allowed = first * (1 + share) + more
            rows.append((name, f"{first:.1f}", f"{last:.1f}", f"{allowed:.1f}", f"{max(now[name] for _, now in samples):.1f}"))
            if last > allowed:
                wrong.append(f"growth of {name}")
        return found + table(" | first third | last third | allowed | most", rows), wrong


def run(options):
    with folder(options.dir) as work:
        load = Load(options, work)
        steal = stolen(load.worker)
        spool, more = {"bytes_max": "4GiB", "segment_bytes": "64MiB"}, {"capture": {"full_per_account": 64}}
        # 512 MiB of blocks ride out a disk that stands still for a while.
        with load.running(Testpmd, "512MiB", spool, **more) as started:
            soak = Soak(options, work, *started)
            try:
                samples = soak.run()
            finally:
                soak.over.set()
        found, wrong = soak.judge(samples, stolen(load.worker) - steal)
        verdict = "No drop, no growth." if not wrong else "**Failed: see the figures.**"
        keep("soak", f"captures that start and end all the time, for {options.minutes:g} minutes", f"""\
{verdict} Captures of everything, one of 30 s and two of 1 s at a time; medians of samples each {options.interval:g} s after a fifth of the time; ring of
{options.ring} frames; {load.where()}, sender on {load.sender_cores}; spool and bucket on
{file_system(work)[1]}.""", found, options.command, dpdk(load.memory))
    if wrong:
        raise Failed("; ".join(wrong))
