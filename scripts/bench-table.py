#!/usr/bin/env python3
"""Turns bench.sh's results (JSON lines) into Markdown tables: medians with their spread, ratios beside their targets."""

import json
import statistics
import sys
from collections import defaultdict

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


def main():
    runs = defaultdict(list)
    sizes, systems = [], []
    for line in open(sys.argv[1], encoding="ascii"):
        row = json.loads(line)
        runs[row["file_system"], row["size"], row["stage"]].append(row["figures"])
        for value, known in ((row["size"], sizes), (row["file_system"], systems)):
            if value not in known:
                known.append(value)
    for system in systems:
        measured = {size for (s, size, _), found in runs.items() if s == system and found}
        table(system, [size for size in sizes if size in measured], runs)


def table(system, sizes, runs):
    def values(size, stage, figure):
        return [figures[figure] for figures in runs[system, size, stage] if figure in figures]

    def median(size, stage, figure="pps"):
        found = values(size, stage, figure)
        return statistics.median(found) if found else None

    def cell(size, stage, figure="pps", unit=1e6, digits=2):
        found = values(size, stage, figure)
        if not found:
            return "not measured"
        low, middle, high = (f"{x / unit:.{digits}f}" for x in (min(found), statistics.median(found), max(found)))
        return middle if low == high else f"{middle} ({low}–{high})"

    def ratio(value, base, target, most=False):
        if value is None or not base:
            return "not measured"
        reached = value / base
        if target is None:
            return f"{reached:.2f}"
        sign, met = ("≤", reached <= target) if most else ("≥", reached >= target)
        return f"{reached:.2f} ({sign} {target}{'' if met else ': missed'})"

    print(f"## {system}\n")
    print("| frames | runs | rxonly Mpps | memory Mpps | memory / rxonly | direct Mpps | mapped Mpps | tx_pcap Mpps | fio GB/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in sizes:
        count = max((len(found) for (s, z, _), found in runs.items() if (s, z) == (system, size)), default=0)
        cells = [size, str(count), cell(size, "rxonly"), cell(size, "memory"),
                 ratio(median(size, "memory"), median(size, "rxonly"), MEMORY_TARGET.get(size)), cell(size, "direct"),
                 cell(size, "mapped"), cell(size, "tx_pcap"), cell(size, "fio", "bytes_s", 1e9)]
        print("| " + " | ".join(cells) + " |")
    print()
    print("| frames | way to disk | Gbit/s of frames | GB/s on disk | / min(memory, fio) | / tx_pcap | not captured "
          "| worker core-s/GB | writer core-s/GB | segment by capinfos |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for size in sizes:
        for stage in ("direct", "mapped"):
            if not runs[system, size, stage]:
                continue
            ceilings = [x for x in (median(size, "memory", "bytes_s"), median(size, "fio", "bytes_s")) if x]
            writer = median(size, stage, "writer_core_s_per_gb")
            cells = [size, stage, cell(size, stage, "bps", 1e9), cell(size, stage, "bytes_s", 1e9),
                     ratio(median(size, stage, "bytes_s"), min(ceilings, default=0), DISK_TARGET),
                     ratio(median(size, stage), median(size, "tx_pcap"), TX_PCAP_TARGET.get(size)),
                     cell(size, stage, "not_captured", 0.01, 1) + " %",
                     cell(size, stage, "worker_core_s_per_gb", 1), ratio(writer, 1, CPU_TARGET, most=True),
                     f"{len(values(size, stage, 'capinfos'))} agree with the ledger"]
            print("| " + " | ".join(cells) + " |")
    print()
    if not any(runs[system, size, stage] for size in sizes for stage, *_ in CAPTURES):
        return
    print("| frames | into memory | Mpps | against | ratio |")
    print("|---|---|---|---|---|")
    for size in sizes:
        for stage, title, figure, base, target, only in CAPTURES:
            if runs[system, size, stage]:
                wanted = target if only in (None, size) else None
                print(f"| {size} | {title} | {cell(size, stage, figure)} | {base} "
                      f"| {ratio(median(size, stage, figure), median(size, base), wanted)} |")
    print()


if __name__ == "__main__":
    main()
