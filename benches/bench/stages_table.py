"""The results of the stages (JSON lines) as Markdown tables: medians with their spread, ratios beside their targets."""

import json
import statistics
from collections import defaultdict

from .results import table

# Targets: (ratio, by size). They are ratios because rates belong to the machine.
MEMORY_TARGET = {"64": 0.55, "imix": 0.40, "1518": 0.40}
DISK_TARGET = 0.95
TX_PCAP_TARGET = {"64": 6.5, "imix": 5.5, "1518": 4.5}
CPU_TARGET = 0.15
CAPTURES = (("noring", "one capture of everything, without the rings", "pps", "memory", None, None),
            ("noport", "one capture of everything, frames from net_null", "pps", "rxonly", None, None),
            ("filter1", "one capture whose filter takes all", "pps", "rxonly", None, None),
            ("reject64", "64 captures that all reject", "rx_pps", "rxonly", 0.6, "64"),
            ("split64", "64 captures that take a 64th each", "pps", "memory", 0.8, None),
            ("split64", "the same", "pps", "filter1", None, None),
            ("snap160", "160 bytes of every frame", "rx_pps", "rxonly", 0.5, "1518"),
            ("sample10", "160 bytes of one frame in ten", "rx_pps", "rxonly", None, None))


def text(path):
    runs, sizes, systems = defaultdict(list), {}, {}
    with open(path, encoding="ascii") as lines:
        for row in map(json.loads, lines):
            runs[row["file_system"], row["size"], row["stage"]].append(row["figures"])
            sizes[row["size"]] = systems[row["file_system"]] = True
    parts = []
    for system in systems:
        measured = [size for size in sizes if any(found for (s, z, _), found in runs.items() if (s, z) == (system, size))]
        parts.append(System(system, measured, runs).text())
    return "\n".join(parts)


def ratio(value, base, target, most=False):
    if value is None or not base:
        return "not measured"
    reached = value / base
    if target is None:
        return f"{reached:.2f}"
    sign, met = ("≤", reached <= target) if most else ("≥", reached >= target)
    return f"{reached:.2f} ({sign} {target}{'' if met else ': missed'})"


class System:
    """One file system's tables."""

    def __init__(self, name, sizes, runs):
        self.name, self.sizes, self.runs = name, sizes, runs

    def found(self, size, stage):
        return self.runs.get((self.name, size, stage), [])

    def values(self, size, stage, figure):
        return [figures[figure] for figures in self.found(size, stage) if figure in figures]

    def median(self, size, stage, figure="pps"):
        found = self.values(size, stage, figure)
        return statistics.median(found) if found else None

    def cell(self, size, stage, figure="pps", unit=1e6, digits=2):
        found = self.values(size, stage, figure)
        if not found:
            return "not measured"
        low, middle, high = (f"{x / unit:.{digits}f}" for x in (min(found), statistics.median(found), max(found)))
        return middle if low == high else f"{middle} ({low}–{high})"

    def stages(self):
        for size in self.sizes:
            count = max((len(found) for (s, z, _), found in self.runs.items() if (s, z) == (self.name, size)), default=0)
            yield (size, count, self.cell(size, "rxonly"), self.cell(size, "memory"),
                   ratio(self.median(size, "memory"), self.median(size, "rxonly"), MEMORY_TARGET.get(size)), self.cell(size, "direct"),
                   self.cell(size, "mapped"), self.cell(size, "tx_pcap"), self.cell(size, "fio", "bytes_s", 1e9))

    def disks(self):
        for size in self.sizes:
            for stage in ("direct", "mapped"):
                if not self.found(size, stage):
                    continue
                ceilings = [x for x in (self.median(size, "memory", "bytes_s"), self.median(size, "fio", "bytes_s")) if x]
                yield (size, stage, self.cell(size, stage, "bps", 1e9), self.cell(size, stage, "bytes_s", 1e9),
                       ratio(self.median(size, stage, "bytes_s"), min(ceilings, default=0), DISK_TARGET),
                       ratio(self.median(size, stage), self.median(size, "tx_pcap"), TX_PCAP_TARGET.get(size)),
                       self.cell(size, stage, "not_captured", 0.01, 1) + " %", self.cell(size, stage, "worker_core_s_per_gb", 1),
                       ratio(self.median(size, stage, "writer_core_s_per_gb"), 1, CPU_TARGET, most=True),
                       f"{len(self.values(size, stage, 'capinfos'))} agree with the ledger")

    def captures(self):
        for size in self.sizes:
            for stage, title, figure, base, target, only in CAPTURES:
                if self.found(size, stage):
                    wanted = target if only in (None, size) else None
                    yield (size, title, self.cell(size, stage, figure), base,
                           ratio(self.median(size, stage, figure), self.median(size, base), wanted))

    def text(self):
        stages = table("frames | runs | rxonly Mpps | memory Mpps | memory / rxonly | direct Mpps | mapped Mpps | tx_pcap Mpps | fio GB/s",
                       self.stages())
        disks = table("frames | way to disk | Gbit/s of frames | GB/s on disk | / min(memory, fio) | / tx_pcap | not captured "
                      "| worker core-s/GB | writer core-s/GB | segment by capinfos", self.disks())
        captures = list(self.captures())
        captures = [table("frames | into memory | Mpps | against | ratio", captures)] if captures else []
        return "\n".join([f"## {self.name}\n", stages, disks, *captures])
