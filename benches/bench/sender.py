"""Somebody who sends frames to a port at a given rate, in a process of its own, and counts them: dpdk-testpmd, Pktgen-DPDK, or a
command on the other end of a cable. Owns its start, its counts and its end; and the host that it sends to, as both load tests need it.
"""

import contextlib
import mmap
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import time

from . import Failed
from .appliance import Appliance
from .machine import cores, done, hugepages, note, packages, said, trawl
from .watchdog import Watchdog

PACER = pathlib.Path(__file__).with_name("pace.c")
FCS_BYTES = 4
BUFFER_BYTES = 2000  # of a frame in one buffer of testpmd's
SETTLE_SECONDS = 0.3
# Bounds of what takes no such time unless something hangs: a trial beyond its sending (its merge and its check are minutes on a
# slow disk), the start, and the end of everything.
TRIAL_SECONDS, START_SECONDS, END_SECONDS = 300, 120, 150


def segments(size):
    """testpmd's `txpkts` for a frame: parts that fit into its buffers."""
    whole = 1514 if size == "imix" else int(size) - FCS_BYTES
    parts = -(-whole // BUFFER_BYTES)
    return ",".join(str(whole // parts + (part < whole % parts)) for part in range(parts))


class Testpmd:
    """dpdk-testpmd in txonly mode on a net_vhost port, paced by pace.c."""
    name = "`dpdk-testpmd` txonly on `net_vhost`, paced by benches/bench/pace.c"

    def __init__(self, load, watchdog):
        pacer = load.work / "pace.so"
        flags = said("pkg-config", "--cflags", "--libs", "libdpdk").split()
        done("cc", "-O2", "-shared", "-fPIC", "-o", pacer, PACER, *flags, words=f"{PACER} cannot be built")
        self.control_path = load.work / "pace"
        self.control_path.write_bytes(bytes(16))
        self.file = self.control_path.open("r+b")
        self.control = mmap.mmap(self.file.fileno(), 16)
        command = ["stdbuf", "-oL", "dpdk-testpmd", "--no-pci", *load.sender_memory.split(), "--no-shconf",
                   "--no-telemetry", f"--lcores={load.sender_cores}", "-d", pacer,
                   f"--vdev=net_vhost0,iface={load.socket},queues=1,client=0", "--", "-i", "--forward-mode=txonly",
                   "--txonly-multi-flow", "--total-num-mbufs=8192"]
        self.begin("testpmd", command, load, watchdog, subprocess.PIPE)

    def begin(self, name, command, load, watchdog, stdout=None):
        self.log = (load.work / f"{name}.log").open("wb", buffering=0)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout or self.log, stderr=self.log, text=True,
                                        env={**os.environ, "TRAWL_PACE": str(load.work / "pace")})
        watchdog.add(name, self.process, self.log.name)
        deadline = time.monotonic() + 30
        while not load.socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{name} made no socket: {self.last_words()}")
            time.sleep(0.05)

    def last_words(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")[-2000:]

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
        raise Failed(f"testpmd ended: {self.last_words()}")

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
    name = "Pktgen-DPDK on `net_vhost`"
    LINK_BITS = 10e9  # what net_vhost reports, and what a rate in percent refers to
    LUA = ("localhost", 22022)

    def __init__(self, load, watchdog):
        if not shutil.which("pktgen"):
            raise Failed("pktgen (Pktgen-DPDK) is not in PATH: https://pktgen-dpdk.readthedocs.io says how to build it; without "
                         "--pktgen this test uses dpdk-testpmd")
        main, sender = load.sender_cores.split(",")
        command = ["pktgen", "--no-pci", *load.sender_memory.split(), "--no-telemetry",
                   f"--lcores={main},{sender}", f"--vdev=net_vhost0,iface={load.socket},queues=1,client=0",
                   "--", "-G", "-m", f"{sender.split('@')[0]}.0"]
        self.begin("pktgen", command, load, watchdog)

    def lua(self, text):
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

    def __init__(self, load, _watchdog):
        self.command = load.options.generator
        self.name = f"`{self.command}`, into port {load.options.port}"

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


class Load:
    """What a load test runs on: cores and memory of trawl and of the sender, and the folder of both."""

    def __init__(self, options, work):
        packages("dpdk-dev", "python3", "util-linux")
        self.options, self.work, self.socket, self.binary = options, work, work / "vhost", trawl()
        found = cores()
        self.worker = found[-1]
        if len(found) >= 4:
            self.writers, self.sender_cores = found[1:-2], f"0@{found[0]},1@{found[-2]}"
        else:
            self.writers, self.sender_cores = found[:1], f"0@{found[0]},1@{found[0]}"
            note(f"{len(found)} cores: the sender shares core {found[0]} with writers and merge")
        # vhost maps the other process's memory by its file descriptor: that takes few and large files.
        # A ring of more than 8192 needs a piece of memory that no hugepage holds, which only virtual addresses make contiguous.
        self.memory = "--no-pci --in-memory --iova-mode=va --single-file-segments -m 512"
        self.sender_memory = "--in-memory --single-file-segments -m 256"
        if not hugepages(700):
            self.memory, self.sender_memory = "--no-pci --no-huge --in-memory -m 256", "--no-huge -m 256"
        # Whatever else runs on the worker's core costs frames, and what is started from here on inherits this.
        os.sched_setaffinity(0, set(found) - {self.worker})

    @contextlib.contextmanager
    def running(self, sender, blocks, spool, device=None, **more):
        """Watchdog, sender and trawl; in the end nothing of them is left, and trawl must have ended as an operator ends it. Each
        step in between says to the watchdog how long it may take."""
        watchdog, server = Watchdog(), None
        watchdog.expect(START_SECONDS, "start")
        generator = sender(self, watchdog)
        try:
            server = Appliance(self.binary, self.work, {
                "dpdk": {"eal": self.memory.split()},
                "[port": {"device": device or f"net_virtio_user0,path={self.socket},queues=1,queue_size={self.options.ring}",
                          "queues": 1, "rx_descriptors": self.options.ring, "mbufs": 2 * self.options.ring},
                "cores": {"workers": [self.worker], "writers": self.writers},
                "blocks": {"bytes_max": blocks},
                "spool": spool,
                **more,
            })
            watchdog.add("trawl", server.process, server.log)
            yield watchdog, generator, server
            watchdog.expect(END_SECONDS, "the end of trawl and the sender")
            server.finish()
        finally:
            watchdog.expect(END_SECONDS, "the end of what is left")
            if server:
                server.kill()
            generator.end()
            watchdog.expect(float("inf"), "the end")

    def where(self):
        return f"worker on core {self.worker}, writers and everything else on {' '.join(map(str, self.writers))}"

