#!/usr/bin/env python3
"""The search of loadtest.sh, which prepares what this needs: RFC 2544's throughput, and the ledger beyond it.

A trial is one capture of everything, attached before the first frame is sent and stopped after the last one was received,
so its ledger covers what was sent to the packet. Python's standard library only.
"""

import argparse
import json
import mmap
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from appliance import Appliance, Failed  # noqa: E402
from watchdog import Watchdog  # noqa: E402

FCS_BYTES = 4
BUFFER_BYTES = 2000  # of a frame in one buffer of testpmd's
IMIX_MEAN = (7 * 60 + 4 * 590 + 1514) / 12
# A search stops when it has narrowed the rate down to this share, or after so many trials.
RESOLUTION, TRIALS_MAX = 0.02, 12
SETTLE_SECONDS = 0.3
# Bounds of what takes no such time unless something hangs: a trial beyond its sending (its merge and its check are minutes on a
# slow disk), the start, and the end of everything.
TRIAL_SECONDS, START_SECONDS, END_SECONDS = 300, 120, 150


def frame_bytes(size):
    """Bytes of a frame without FCS; the mean for a mix."""
    return IMIX_MEAN if size == "imix" else int(size) - FCS_BYTES


def segments(size):
    """testpmd's `txpkts` for a frame: parts that fit into its buffers."""
    whole = 1514 if size == "imix" else int(size) - FCS_BYTES
    parts = -(-whole // BUFFER_BYTES)
    return ",".join(str(whole // parts + (part < whole % parts)) for part in range(parts))


class Testpmd:
    """dpdk-testpmd in txonly mode on a net_vhost port, paced by scripts/pace.c."""
    name = "testpmd txonly on net_vhost, paced by a TX callback (scripts/pace.c)"

    def __init__(self, arguments, socket, watchdog):
        self.control_path = pathlib.Path(arguments.work) / "pace"
        self.control_path.write_bytes(bytes(16))
        self.file = self.control_path.open("r+b")
        self.control = mmap.mmap(self.file.fileno(), 16)
        self.log = (pathlib.Path(arguments.work) / "testpmd.log").open("wb", buffering=0)
        command = ["stdbuf", "-oL", "dpdk-testpmd", "--no-pci", *arguments.generator_memory.split(), "--no-shconf",
                   "--no-telemetry", f"--lcores={arguments.generator_cores}", "-d", arguments.pacer,
                   f"--vdev=net_vhost0,iface={socket},queues=1,client=0", "--", "-i", "--forward-mode=txonly",
                   "--txonly-multi-flow", "--total-num-mbufs=8192"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env={**os.environ, "TRAWL_PACE": str(self.control_path)})
        watchdog.add("testpmd", self.process, self.log.name)
        deadline = time.monotonic() + 30
        while not pathlib.Path(socket).exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"testpmd made no socket: {pathlib.Path(self.log.name).read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def send(self, size, rate, seconds, wait=time.sleep):
        """Sends until `wait(seconds)` returns; gives what was put into the ring, what the ring had no room for, and the time
        that it took."""
        self.control[:] = struct.pack("=QQ", int(rate), size == "imix")
        self.say(f"set txpkts {segments(size)}")
        self.say("start")
        self.until("packet forwarding")
        began = time.monotonic()
        wait(seconds)
        self.say("stop")
        self.until("Telling cores to stop")
        took = time.monotonic() - began
        self.until("Accumulated forward statistics")
        counts = self.until("TX-packets:")
        sent, refused = (int(word) for word in re.findall(r"TX-(?:packets|dropped): (\d+)", counts))
        self.until("Done.")
        return sent, refused, took

    def until(self, words):
        for line in self.process.stdout:
            self.log.write(line.encode())
            if words in line:
                return line
        raise Failed(f"testpmd ended: {pathlib.Path(self.log.name).read_text(errors='replace')[-2000:]}")

    def end(self):
        if self.process.poll() is None:
            self.say("quit")
            try:
                self.process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Pktgen(Testpmd):
    """Pktgen-DPDK on a net_vhost port, told by its Lua socket what to do; it paces itself."""
    name = "Pktgen-DPDK on net_vhost, by its own rate control"
    LINK_BITS = 10e9  # what net_vhost reports, and what a rate in percent refers to
    LUA = ("localhost", 22022)

    def __init__(self, arguments, socket, watchdog):
        main, sender = arguments.generator_cores.split(",")
        self.log = (pathlib.Path(arguments.work) / "pktgen.log").open("wb")
        command = ["pktgen", "--no-pci", *arguments.generator_memory.split(), "--no-telemetry",
                   f"--lcores={main},{sender}", f"--vdev=net_vhost0,iface={socket},queues=1,client=0",
                   "--", "-G", "-m", f"{sender.split('@')[0]}.0"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, text=True)
        watchdog.add("pktgen", self.process, self.log.name)
        deadline = time.monotonic() + 30
        while not pathlib.Path(socket).exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"pktgen made no socket: {pathlib.Path(self.log.name).read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def lua(self, text):
        import socket
        with socket.create_connection(self.LUA, timeout=10) as line:
            line.sendall(text.encode() + b"\n")
            line.shutdown(socket.SHUT_WR)
            answer = b""
            while part := line.recv(4096):
                answer += part
        return answer.decode(errors="replace")

    def count(self):
        answer = self.lua('s = pktgen.portStats("0", "port")[0]; printf("sent %d %d end\\n", s.opackets, s.oerrors)')
        found = re.search(r"sent (\d+) (\d+) end", answer)
        if not found:
            raise Failed(f"pktgen does not say what it sent: {answer}")
        return int(found[1]), int(found[2])

    def send(self, size, rate, seconds):
        if size == "imix":
            raise Failed("--pktgen sends frames of one size: leave imix out of --sizes")
        percent = min(100.0, rate * (int(size) + 20) * 8 / self.LINK_BITS * 100) if rate else 100.0
        self.lua(f'pktgen.set("0", "size", {size}); pktgen.set("0", "rate", {percent:.4f})')
        before, began = self.count(), time.monotonic()
        self.lua('pktgen.start("0")')
        time.sleep(seconds)
        self.lua('pktgen.stop("0")')
        took = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        sent, refused = self.count()
        return sent - before[0], refused - before[1], took

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class External:
    """Somebody else's generator on the other end of a real port."""

    def __init__(self, arguments, _socket, _watchdog):
        self.command = arguments.generator
        self.name = f"`{self.command}`"

    def send(self, size, rate, seconds):
        done = subprocess.run([self.command, str(size), str(int(rate)), str(seconds)], stdout=subprocess.PIPE, text=True,
                              check=False)
        words = done.stdout.split()
        if done.returncode != 0 or not words or not all(word.isdigit() for word in words[:2]):
            raise Failed(f"{self.command} must print how many frames it sent; it ended with {done.returncode} and "
                         f"printed {done.stdout!r}")
        return int(words[0]), int(words[1]) if len(words) > 1 else 0, float(seconds)

    def end(self):
        pass


def stolen(core):
    """Seconds that the hypervisor has kept from a core since boot."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        words = line.split()
        if words[0] == f"cpu{core}":
            return int(words[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Trial:
    """What became of one offer."""

    def __init__(self, sent, refused, took, progress):
        self.ledger = progress["ledger"]
        self.sent, self.refused = sent, refused
        self.offered = sent + refused
        self.pps = self.offered / took
        self.lost = refused + self.ledger["offered"] - self.ledger["rx"] + sum(self.ledger["dropped"].values())
        # The sum that this test is about; the ledger's own equations were checked with each reading.
        counted = self.ledger["captured"] + self.ledger["unmatched"] + self.lost
        self.balances = self.ledger["offered"] == sent and counted == self.offered


class Test:
    def __init__(self, arguments):
        self.arguments, self.watchdog = arguments, Watchdog()
        self.watchdog.expect(START_SECONDS, "start")
        socket = f"{arguments.work}/vhost"
        device = arguments.port or f"net_virtio_user0,path={socket},queues=1,queue_size={arguments.ring}"
        kind = External if arguments.generator else Pktgen if arguments.pktgen else Testpmd
        self.generator, self.trawl = kind(arguments, socket, self.watchdog), None
        try:
            self.trawl = Appliance(arguments.trawl, arguments.work, {
                "dpdk": {"eal": arguments.eal.split()},
                "[port": {"device": device, "queues": 1, "rx_descriptors": arguments.ring, "mbufs": 2 * arguments.ring},
                "cores": {"workers": [int(arguments.worker)], "writers": [int(core) for core in arguments.writers.split()]},
                "blocks": {"bytes_max": arguments.blocks},
                "spool": {"bytes_max": arguments.spool_bytes},
            })
        except BaseException:
            self.generator.end()
            raise
        self.watchdog.add("trawl", self.trawl.process, self.trawl.log)

    def trial(self, size, rate):
        trawl, seconds = self.trawl, self.arguments.seconds
        self.watchdog.expect(seconds + TRIAL_SECONDS, f"a trial of {size} at {rate:.0f} frames a second")
        capture = trawl.create()
        trawl.running(capture)
        sent, refused, took = self.generator.send(size, rate, seconds)
        last, quiet = -1, time.monotonic()
        while time.monotonic() - quiet < SETTLE_SECONDS:
            received = trawl.progress(capture)["ledger"]["rx"]
            if received != last:
                last, quiet = received, time.monotonic()
            time.sleep(0.05)
        trawl.stop(capture)
        progress = trawl.ended(capture)
        if progress["stop_reason"] != "stop_requested" or progress["status"] != "success":
            raise Failed(f"the trial's capture ended by itself: {progress}; give it more room (--dir) or fewer --seconds")
        manifest = trawl.verify(capture)
        if manifest["ledger"] != progress["ledger"]:
            raise Failed(f"manifest and API differ: {manifest['ledger']} {progress['ledger']}")
        trawl.remove_objects()
        trial = Trial(sent, refused, took, progress)
        aim = f"{rate / 1e6:8.3f}" if rate else "     all"
        print(f"    {size:>5} {aim} Mpps wanted, {trial.pps / 1e6:8.3f} offered, {trial.lost} of {trial.offered} lost"
              f"{'' if trial.balances else '  DOES NOT BALANCE: ' + str(trial.ledger)}", file=sys.stderr, flush=True)
        return trial

    def search(self, size):
        """The highest rate without loss that was found, and all trials."""
        tolerated = self.arguments.loss
        top = self.trial(size, 0)
        trials, best = [top], None
        if top.lost <= tolerated * top.offered:
            return top, trials
        low, high = 0.0, top.pps
        while len(trials) < TRIALS_MAX and high - low > RESOLUTION * high:
            rate = (low + high) / 2
            trial = self.trial(size, rate)
            trials.append(trial)
            if trial.lost <= tolerated * trial.offered:
                low, best = rate, max(best or trial, trial, key=lambda t: t.pps)
            else:
                high = rate
        return best, trials

    def row(self, size):
        steal, began = stolen(self.arguments.worker), time.monotonic()
        best, trials = self.search(size)
        above = self.trial(size, 0)
        trials.append(above)
        ledger = above.ledger
        counted = {"captured": ledger["captured"], "ring full": above.refused, **ledger["port"], **ledger["dropped"],
                   "unmatched": ledger["unmatched"]}
        return {"frames": size, "frame_bytes": frame_bytes(size), "pps": best.pps if best else 0.0,
                "source_is_limit": best is trials[0], "trials": len(trials), "seconds_each": self.arguments.seconds,
                "ring": self.arguments.ring, "loss": self.arguments.loss, "above_pps": above.pps, "above_offered": above.offered,
                "above_counted": counted, "balances": all(trial.balances for trial in trials),
                "stolen": stolen(self.arguments.worker) - steal, "took": time.monotonic() - began}

    def run(self):
        """Appends a row for each size to the results; gives whether every ledger balances."""
        balances = True
        for size in self.arguments.sizes.split():
            row = self.row(size)
            balances = balances and row["balances"]
            with open(self.arguments.results, "a", encoding="ascii") as results:
                print(json.dumps(row), file=results)
        return balances

    def end(self):
        self.watchdog.expect(END_SECONDS, "the end of trawl and the sender")
        self.trawl.finish()
        self.generator.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("work", "trawl", "eal", "worker", "writers", "blocks", "spool-bytes", "sizes", "results"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("pacer", "port", "generator", "generator-cores", "generator-memory"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--pktgen", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--ring", type=int, required=True)
    parser.add_argument("--loss", type=float, default=0.0)
    arguments, test = parser.parse_args(), None
    # Ends what it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Whatever else runs on the worker's core costs frames, and what is started here inherits this.
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {int(arguments.worker)})
    try:
        test = Test(arguments)
        balances = test.run()
        test.end()
    except Failed as failure:
        sys.exit(f"error: {failure}")
    finally:
        if test:
            test.watchdog.expect(END_SECONDS, "the end of what is left")
            test.trawl.kill()
            test.generator.end()
    if not balances:
        sys.exit("error: the ledger does not balance: this is a bug of ours")


if __name__ == "__main__":
    main()
