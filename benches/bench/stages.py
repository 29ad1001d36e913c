"""Every stage of a capture host on its own, interleaved in one run, on this machine and one file system.

  rxonly    what dpdk-testpmd receives and throws away: the source's own limit (net_pcap, infinite_rx, 2000 frames)
  memory    trawl into blocks that the writer throws away (spool.write = "discard"): port, worker and rings without a disk
  noring    memory without the rings: the worker uses its full blocks again itself (spool.write = "discard-in-worker")
  direct    trawl to disk with O_DIRECT through io_uring
  mapped    trawl to disk through mapped segments that are used again
  tx_pcap   what dpdk-testpmd writes when it forwards into a net_pcap file (through the page cache)
  fio       the file system alone: fio, sequential writes of 1 MiB, eight in flight, O_DIRECT (plain on a tmpfs)
  noport    memory with a port that makes frames without copying them (net_null; not for imix): worker and rings alone
  filter1   memory with one capture whose filter takes all
  reject64  memory with 64 captures that all reject        split64  memory with 64 captures that take a 64th each
  snap160   160 bytes of every frame                       sample10  160 bytes of one frame in ten

Every trawl run ends with its ledgers checked, and where files were written, a segment counted by capinfos against them. Needs root
and hugepages for figures worth keeping.
"""

import json
import os
import re
import statistics
import subprocess
import sys

from . import Failed, capture, frames, stages_table
from .appliance import replay
from .machine import Host, ROOT, dpdk, file_system, folder, free_gib, memory_kib, output, say, trawl
from .results import keep

ALL = "rxonly memory noring noport direct mapped tx_pcap fio filter1 reject64 split64 snap160 sample10"
OPTIONS = {
    "runs": (3, "of each stage, in turn"),
    "seconds": (2.0, "of each measurement"),
    "sizes": ("64 imix 1518 9018", "of frames, with FCS"),
    "stages": (ALL, "which ones"),
    "dir": (str(ROOT / "benches/results/raw"), "which file system is measured"),
    "results": ("", "file (JSON lines) that is appended to, so that a long table can be measured in pieces"),
    "no-table": (False, "no table yet: for all pieces but the last"),
}
WRITES = {"memory": "discard", "noring": "discard-in-worker", "direct": "direct", "mapped": "mapped"}


class Stages:
    """What all stages of a run share."""

    def __init__(self, options, host, work):
        self.options, self.host, self.work, self.binary = options, host, work, trawl()
        self.file_system = file_system(work)[0]
        # A file system in memory takes part of what the machine has.
        self.gib = free_gib(work) // 2 if self.file_system != "tmpfs" else memory_kib("MemAvailable") * 2 // 3 >> 20
        if self.gib < 4:
            raise Failed(f"{options.dir} has too little free space: 8 GiB are needed, --dir names another place")

    def testpmd(self, mode, device, size, direction):
        """testpmd says each second what it received; the first two figures cover its start."""
        # net_pcap's infinite_rx knows no chains of buffers.
        buffers = ["--total-num-mbufs=16384"] if size != "9018" else \
            ["--total-num-mbufs=8192", "--mbuf-size=9472", "--max-pkt-len=9018"]
        command = ["timeout", "-s", "TERM", "-k", "10", f"{self.options.seconds + 3:g}", "dpdk-testpmd", "-l", f"{self.host.main},{self.host.poll}",
                   "--no-pci", "--in-memory", *self.host.memory.split(), "--log-level=error", "--vdev", device, "--",
                   f"--forward-mode={mode}", "--auto-start", "--stats-period=1", *buffers, "--no-flush-rx"]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             errors="replace", check=False)
        if "Accumulated forward statistics" not in ran.stdout:
            raise Failed(f"testpmd ended with {ran.returncode}: {ran.stdout[-1000:]}")
        said = re.findall(rf"{direction}-pps:\s+(\d+)\s+{direction}-bps:\s+(\d+)", ran.stdout)[2:]
        if not said:
            raise Failed(f"testpmd said too little in its time: more --seconds. It said: {ran.stdout[-2000:]}")
        pps, bps = (statistics.mean(map(int, column)) for column in zip(*said))
        return {"pps": round(pps), "bps": round(bps)}

    def rxonly(self, size, path):
        return self.testpmd("rxonly", f"net_pcap0,rx_pcap={path},infinite_rx=1", size, "Rx")

    def tx_pcap(self, size, path):
        out = self.work / "tx.pcap"
        try:
            return self.testpmd("io", f"net_pcap0,rx_pcap={path},tx_pcap={out},infinite_rx=1", size, "Tx")
        finally:
            out.unlink(missing_ok=True)

    def fio(self, _size, _path):
        file = self.work / "fio"
        said = output("fio", "--name=write", f"--filename={file}", "--rw=write", "--bs=1M", "--size=2G",
                      f"--direct={int(self.file_system != 'tmpfs')}", "--ioengine=io_uring", "--iodepth=8",
                      f"--runtime={self.options.seconds + 1:g}", "--time_based", f"--cpus_allowed={self.host.main}", "--output-format=json")
        file.unlink()
        return {"bytes_s": json.loads(said)["jobs"][0]["write"]["bw_bytes"]}

    def trawl(self, stage, size, path):
        # One segment that is larger than the run: merging starts after the measured time, so that the disk is written once, as by
        # testpmd. A mapped one is there before, as on a host that has run for a while; it is full in one second.
        seconds, segment, pool = self.options.seconds, self.gib, 0
        if stage == "mapped":
            segment = pool = min(self.gib, 9 if self.file_system == "tmpfs" else 4)
            seconds = min(seconds, 0.4)
        spool = {"bytes_max": f"{self.gib}GiB", "segment_bytes": f"{segment}GiB", "rotate_seconds": 3600, "pool_bytes": f"{pool}GiB",
                 "write": WRITES.get(stage, "discard")}
        history = {"enabled": stage in ("snap160", "sample10"), "sample": 1 if stage == "snap160" else 10, "bytes_max": f"{self.gib}GiB"}
        sections = replay(self.host, path, "512MiB", spool, history=history, capture={"full_per_account": 64})
        # As many blocks as the host takes by itself.
        del sections["blocks"]
        if stage == "noport":
            sections["[port"]["device"] = f"net_null0,size={int(size) - 4}"
        with folder(self.work) as work:
            return capture.figures_of(self.binary, work, sections, "all" if stage in WRITES else stage, seconds)

    def one(self, stage, size, path):
        if stage in ("rxonly", "tx_pcap", "fio"):
            return getattr(self, stage)(size, path)
        return self.trawl(stage, size, path)

    def run(self, results):
        for size in self.options.sizes.split():
            path = frames.write(self.work / f"{size}.pcap", size)
            for run in range(self.options.runs):
                for stage in self.options.stages.split():
                    if (stage, size) == ("noport", "imix"):
                        continue
                    # What an earlier run left in the page cache must not be written during this one.
                    os.sync()
                    row = {"file_system": self.file_system, "size": size, "stage": stage, "run": run + 1, "figures": self.one(stage, size, path)}
                    with open(results, "a", encoding="ascii") as out:
                        print(json.dumps(row), file=out)
                    print(json.dumps(row), file=sys.stderr)


def run(options):
    unknown = set(options.stages.split()) - set(ALL.split())
    if unknown:
        raise Failed(f"--stages: there is no {' '.join(sorted(unknown))}; there are: {ALL}")
    host = Host("dpdk-dev", "fio", "tshark")
    with folder(options.dir) as work:
        say(f"{options.runs} runs of {options.seconds:g} s each at: {options.sizes}")
        results = options.results or work / "results.jsonl"
        Stages(options, host, work).run(results)
        if options.no_table:
            return
        keep("stages", "trawl's stages against dpdk-testpmd and fio", f"""\
Medians (smallest–largest) of runs that alternate; `net_pcap`, `infinite_rx=1`, 2000 frames; one polling core, one other
core; sizes with FCS; DPDK memory `{host.memory}`.""", stages_table.text(results), options.command, dpdk(host.memory), file_system(work)[1])
