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
from loadtest import Testpmd, stolen  # noqa: E402

# What is read before this share of the time has passed belongs to the start.
WARM_UP = 0.2
# From the first third to the last, medians may grow by a share and so many more: allocators and caches breathe.
ALLOWED = {"memory MiB": (0.03, 4), "descriptors": (0.0, 4), "threads": (0.0, 4), "spool MiB": (0.25, 64)}
LONG_SECONDS, SHORT_SECONDS = 30, 1.0


class Soak:
    def __init__(self, arguments):
        self.arguments = arguments
        socket = f"{arguments.work}/vhost"
        self.generator = Testpmd(arguments, socket)
        self.over, self.failures, self.captures, self.packets = threading.Event(), [], 0, 0
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
            raise Failed(f"a capture lost packets or ended by itself: {progress}")
        if progress["status"] == "success" and number % 10 == 0:
            trawl.verify(capture, bucket)
        for path in bucket.iterdir():
            path.unlink()
        with self.lock:
            self.captures += 1
            self.packets += ledger["captured"]

    def loop(self, seconds):
        number = 0
        try:
            while not self.over.is_set():
                self.one(seconds, number)
                number += 1
        except Exception as failure:  # pylint: disable=broad-except  # shown by the main thread
            self.failures.append(failure)
            self.over.set()

    def sample(self):
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
        a, steal = self.arguments, stolen(self.arguments.worker)
        seconds, began = a.minutes * 60, time.monotonic()
        offer = {}
        sender = threading.Thread(target=lambda: offer.update(zip(("sent", "refused", "took"),
                                                                  self.generator.send(a.size, a.rate, seconds))))
        loops = [threading.Thread(target=self.loop, args=(each,)) for each in (LONG_SECONDS, SHORT_SECONDS, SHORT_SECONDS)]
        for thread in [sender, *loops]:
            thread.start()
        samples = []
        print("| s | captures | " + " | ".join(ALLOWED) + " |\n|" + "---|" * (2 + len(ALLOWED)), flush=True)
        while not self.over.wait(min(a.interval, max(0.1, seconds - (time.monotonic() - began)))):
            passed = time.monotonic() - began
            now = self.sample()
            samples.append((passed, now))
            print(f"| {passed:.0f} | {self.captures} | " + " | ".join(f"{now[name]:.0f}" for name in ALLOWED) + " |", flush=True)
            if passed >= seconds:
                break
        self.over.set()
        for thread in [sender, *loops]:
            thread.join()
        if self.failures:
            raise self.failures[0]
        print(f"\n{offer['sent'] / offer['took'] / 1e6:.3f} Mpps ({a.size}) for {offer['took']:.0f} s; {self.captures} captures, "
              f"{self.packets} packets in their files, none lost by trawl; {offer['refused']} of "
              f"{offer['sent'] + offer['refused']} did not fit into the ring, while the hypervisor kept "
              f"{stolen(a.worker) - steal:.2f} s from the worker's core.\n", flush=True)
        if offer["refused"] > a.loss * (offer["sent"] + offer["refused"]):
            raise Failed(f"{offer['refused']} frames were lost in the ring: a lower --rate, or a larger --ring")
        return self.growth([now for passed, now in samples if passed >= WARM_UP * seconds])

    def growth(self, samples):
        third = len(samples) // 3
        if third == 0:
            raise Failed("fewer than three samples after the start: more --minutes or a shorter --interval")
        grown = []
        print("| | first third | last third | allowed |\n|---|---|---|---|")
        for name, (share, more) in ALLOWED.items():
            first = statistics.median(sample[name] for sample in samples[:third])
            last = statistics.median(sample[name] for sample in samples[-third:])
            allowed = first * (1 + share) + more
            print(f"| {name} | {first:.1f} | {last:.1f} | {allowed:.1f} |", flush=True)
            if last > allowed:
                grown.append(name)
        return grown


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("work", "trawl", "eal", "worker", "writers", "blocks", "spool-bytes", "size", "pacer", "generator-cores",
                 "generator-memory"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("minutes", "interval", "rate", "loss"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--ring", type=int, required=True)
    arguments, soak = parser.parse_args(), None
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143) if soak is None else soak.over.set())
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {int(arguments.worker)})
    try:
        soak = Soak(arguments)
        grown = soak.run()
        soak.generator.end()
        soak.trawl.finish()
    except Failed as failure:
        sys.exit(f"error: {failure}")
    finally:
        if soak:
            soak.over.set()
            soak.generator.end()
            soak.trawl.kill()
    if grown:
        sys.exit(f"error: growth of {', '.join(grown)}")


if __name__ == "__main__":
    main()
