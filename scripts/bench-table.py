#!/usr/bin/env python3
"""Turns bench.sh's results (size, what, run, `packets/s bits/s [drop-share]`) into a Markdown table of medians."""

import statistics
import sys
from collections import defaultdict


def main():
    runs = defaultdict(list)
    sizes = []
    for line in open(sys.argv[1], encoding="ascii"):
        size, what, _run, figures = line.rstrip("\n").split("\t")
        runs[size, what].append([float(figure) for figure in figures.split()])
        if size not in sizes:
            sizes.append(size)

    def median(size, what, column):
        return statistics.median(figures[column] for figures in runs[size, what])

    print("| frames | testpmd rxonly Mpps | Gbit/s | trawl to disk Mpps | Gbit/s | not captured | testpmd to tx_pcap Mpps "
          "| Gbit/s | trawl / tx_pcap | trawl / rxonly |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for size in sizes:
        cells = [size]
        for what in ("rxonly", "trawl", "tx_pcap"):
            cells += [f"{median(size, what, 0) / 1e6:.2f}", f"{median(size, what, 1) / 1e9:.2f}"]
            if what == "trawl":
                cells.append(f"{median(size, what, 2) * 100:.1f} %")
        trawl = median(size, "trawl", 0)
        cells += [f"{trawl / median(size, what, 0):.2f}" for what in ("tx_pcap", "rxonly")]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
