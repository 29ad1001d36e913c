#!/usr/bin/env python3
"""Turns loadtest.sh's results (JSON lines, one for each frame size) into a Markdown table. Python's standard library only."""

import json
import sys


def main():
    with open(sys.argv[1], encoding="ascii") as lines:
        rows = [json.loads(line) for line in lines]
    print("| frames | ring | no drop, Mpps | Gbit/s | trials | then offered, Mpps | offered = counted | balance of all trials "
          "| kept from the worker's core |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        terms = " + ".join(f"{count} {cause}" for cause, count in row["above_counted"].items() if count or cause == "captured")
        print(f"| {row['frames']} | {row['ring']} | {'≥ ' if row['source_is_limit'] else ''}{row['pps'] / 1e6:.3f} "
              f"| {row['pps'] * row['frame_bytes'] * 8 / 1e9:.2f} | {row['trials']} of {row['seconds_each']:g} s "
              f"| {row['above_pps'] / 1e6:.3f} | {row['above_offered']} = {terms} "
              f"| {'to the packet' if row['balances'] else '**NO**'} | {row['stolen']:.2f} of {row['took']:.0f} s |")


if __name__ == "__main__":
    main()
