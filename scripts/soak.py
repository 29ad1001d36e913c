#!/usr/bin/env python3
"""The work of soak.sh, which prepares what this needs: captures that start and end all the time, and what they leave behind.

Python's standard library only.
"""

import argparse
import os
import pathlib
import signal
import statistics
import sys
import threading
import time

sys.dont_write_bytecode = True
from appliance import Appliance, Failed  # noqa: E402
from loadtest import END_SECONDS, START_SECONDS, TRIAL_SECONDS, Testpmd, stolen  # noqa: E402
from watchdog import Watchdog  # noqa: E402

# What is read before this share of the time has passed belongs to the start.
WARM_UP = 0.2
# From the first third to the last, medians may grow by a share and so many more: allocators and caches breathe.
ALLOWED = {"memory MiB": (0.03, 4), "descriptors": (0.0, 4), "threads": (0.0, 4), "spool MiB": (0.25, 64)}
LONG_SECONDS, SHORT_SECONDS = 30, 1.0


class Soak:
    def __init__(self, arguments):
        self.arguments, self.watchdog = arguments, Watchdog()
        self.watchdog.expect(START_SECONDS, "start")
        socket = f"{arguments.work}/vhost"
        self.generator = Testpmd(arguments, socket, self.watchdog)
        self.over, self.failures, self.captures, self.packets = threading.Event(), [], 0, 0
        self.sent, self.refused, self.took = 0, 0, 1.0
        self.lock = threading.Lock()
        device = f"net_virtio_user0,path={socket},queues=1,queue_size={arguments.ring}"
        try:
            self.trawl = Appliance(arguments.trawl, arguments.work, {
                "dpdk": {"eal": arguments.eal.split()},
                "[port": {"device": device, "queues": 1, "rx_descriptors": arguments.ring, "mbufs": 2 * arguments.ring},
                "cores": {"workers": [int(arguments.worker)], "writers": [int(core) for core in arguments.writers.split()]},
                "blocks": {"bytes_max": arguments.blocks},
                "spool": {"bytes_max": arguments.spool_bytes, "segment_bytes": "64MiB"},
                "capture": {"full_per_account": 64},
            })
        except BaseException:
            self.generator.end()
            raise
        self.watchdog.add("trawl", self.trawl.process, self.trawl.log)

    def one(self, seconds, number):
        """A capture of everything, from its start to its objects, which are removed."""
        trawl = self.trawl
        bucket = pathlib.Path(self.arguments.work) / f"bucket-{threading.get_ident()}"
        bucket.mkdir(mode=0o700, exist_ok=True)
        capture = trawl.create(destination=f"file://{bucket}")
        trawl.running(capture)
        self.over.wait(seconds)
        trawl.stop(capture)
        progress = trawl.ended(capture)
        ledger = progress["ledger"]
        # A burst that was on its way when the stop came is beyond the capture's end, which is no loss.
        lost = sum(ledger["port"].values()) + sum(ledger["dropped"].values()) - ledger["dropped"]["limit"]
        if lost or progress["stop_reason"] != "stop_requested" or (progress["status"] != "success" and ledger["matched"]):
            progress.pop("objects", None)
            raise Failed(f"a capture lost packets or ended by itself: {progress}")
        if progress["status"] == "success" and number % 10 == 0:
            trawl.verify(capture, bucket)
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
        self.sent, self.refused, self.took = self.generator.send(self.arguments.size, self.arguments.rate, seconds, self.over.wait)

    def sample(self):
        if self.trawl.process.poll() is not None:
            raise Failed(f"trawl ended: {self.trawl.last_words()}")
        process = pathlib.Path(f"/proc/{self.trawl.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        kib = sum(int(status.get(name, "0 kB").split()[0]) for name in ("VmRSS", "HugetlbPages"))
        spool = 0
        for path in self.trawl.spool.rglob("*"):
            try:
                spool += path.stat().st_blocks * 512
            except FileNotFoundError:
                pass  # delivered in the meantime
        return {"memory MiB": kib / 1024, "descriptors": len(list((process / "fd").iterdir())),
                "threads": int(status["Threads"]), "spool MiB": spool / 2**20}

    def run(self):
        """Gives what was read, as (seconds passed, reading), after everything has come to its end."""
        a, seconds, began = self.arguments, self.arguments.minutes * 60, time.monotonic()
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
            print(f"    {passed:4.0f} s, {self.captures} captures, " + ", ".join(f"{name} {now[name]:.0f}" for name in ALLOWED),
                  file=sys.stderr, flush=True)
            if passed >= seconds:
                break
        self.over.set()
        self.watchdog.expect(TRIAL_SECONDS, "the delivery of the last captures")
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
        return samples

    def end(self):
        self.watchdog.expect(END_SECONDS, "the end of trawl and the sender")
        self.trawl.finish()
        self.generator.end()

    def judge(self, samples, steal):
        """Prints what was found; gives what is wrong."""
        a, offered = self.arguments, self.sent + self.refused
        print(f"{self.sent / self.took / 1e6:.3f} Mpps ({a.size}) for {self.took:.0f} s: {self.captures} captures, {self.packets} packets "
              f"in their files, none lost by trawl; {self.refused} of {offered} frames did not fit into the ring, while "
              f"the hypervisor kept {steal:.2f} s from the worker's core.\n")
        wrong = [f"{self.refused} frames were lost in the ring: a lower --rate, or a larger --ring"] \
            if self.refused > a.loss * offered else []
        steady = [now for passed, now in samples if passed >= WARM_UP * a.minutes * 60]
        third = len(steady) // 3
        if third == 0:
            raise Failed("fewer than three samples after the start: more --minutes or a shorter --interval")
        print("| | first third | last third | allowed | most |\n|---|---|---|---|---|")
        for name, (share, more) in ALLOWED.items():
            first, last = (statistics.median(now[name] for now in part) for part in (steady[:third], steady[-third:]))
            allowed = first * (1 + share) + more
            print(f"| {name} | {first:.1f} | {last:.1f} | {allowed:.1f} | {max(now[name] for _, now in samples):.1f} |")
            if last > allowed:
                wrong.append(f"growth of {name}")
        return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("work", "trawl", "eal", "worker", "writers", "blocks", "spool-bytes", "size", "pacer", "generator-cores",
                 "generator-memory"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("minutes", "interval", "rate", "loss"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--ring", type=int, required=True)
    arguments, soak = parser.parse_args(), None
    # Ends what it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {int(arguments.worker)})
    steal = stolen(arguments.worker)
    try:
        soak = Soak(arguments)
        samples = soak.run()
        steal = stolen(arguments.worker) - steal
        soak.end()
        wrong = soak.judge(samples, steal)
    except Failed as failure:
        sys.exit(f"error: {failure}")
    finally:
        if soak:
            soak.watchdog.expect(END_SECONDS, "the end of what is left")
            soak.over.set()
            soak.trawl.kill()
            soak.generator.end()
    if wrong:
        sys.exit(f"error: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
