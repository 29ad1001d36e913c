"""The rows of the scale bench as one Markdown table: medians of the runs, and ratios to one worker."""

import statistics
from collections import defaultdict

from .results import table

# Of eight workers, against one.
AIM_WORKERS, AIM = 8, 7.2
TITLES = {"port": "port: received, all rejected", "memory": "into memory", "noport": "into memory, frames from net_null",
          "whole": "whole: to disk, delivery beside", "disk": "to disk, delivery after",
          "shm": "whole: to a file system in memory, delivery beside",
          "deliver": "delivery after the capture", "merge": "`trawl merge` of the segments"}
RATE = {"port": "rx_pps", "deliver": "bytes_s", "merge": "bytes_s"}
# Shares below this are the moments of two readings.
LOST_MIN = 0.0005


def median(runs, figure):
    return statistics.median(figures[figure] for figures in runs)


def lost(runs):
    """The share of what came that was not captured."""
    shares = []
    for figures in runs:
        missing = sum(figures["dropped"].values()) + figures["lost_in_port"]
        shares.append(missing / max(1, figures["rx_pps"] * figures["seconds"]))
    return statistics.median(shares)


def cell(stage, runs, one):
    if not runs:
        return "not measured"
    rate = RATE.get(stage, "pps")
    words = [f"{median(runs, rate) / 1e6:.2f} Mpps" if rate != "bytes_s" else f"{median(runs, rate) / 1e9:.2f} GB/s"]
    if rate == "pps":
        words.append(f"{median(runs, 'bytes_s') / 1e9:.2f} GB/s")
    if one and runs is not one:
        words.append(f"**{median(runs, rate) / median(one, rate):.2f} ×**")
    if rate != "bytes_s" and (share := lost(runs)) > LOST_MIN:
        words.append(f"lost {100 * share:.1f} %")
    return ", ".join(words)


def aim(stage, runs, one):
    if not runs or not one:
        return "not measured"
    reached = median(runs, RATE.get(stage, "pps")) / median(one, RATE.get(stage, "pps"))
    return f"{reached:.2f} {'≥' if reached >= AIM else '<'} {AIM}"


def busy(runs):
    """How much of their cores the workers and the writers had: a polling worker that has less than 1 shares its core."""
    found = [figures["busy"] for figures in runs if "busy" in figures]
    if not found:
        return "–"
    return " / ".join(f"{statistics.median(one[kind] for one in found):.2f}" for kind in ("worker", "writer"))


def text(rows):
    runs, problems = defaultdict(list), []
    for row in rows:
        if "figures" in row:
            runs[row["stage"], row["size"], row["workers"]].append(row["figures"])
        elif "stage" in row:
            said = " ".join((row.get("left_out") or row["error"]).split())
            said = f"left out: {said}" if "left_out" in row else f"ERROR: {said[-400:]}"
            problems.append(f"- {row['stage']}, {row['size']}, {row['workers']} workers, run {row['run']}: {said}")
    counts = sorted({count for _, _, count in runs})
    points = list(dict.fromkeys((stage, size) for stage in TITLES for found, size, _ in runs if found == stage))
    most = counts[-1] if counts else 1
    lines = []
    for stage, size in points:
        one = runs.get((stage, size, 1), [])
        found = [runs.get((stage, size, count), []) for count in counts]
        cells = [cell(stage, of, one) for of in found]
        lines.append((TITLES[stage], size, "/".join(str(len(of)) for of in found), *cells, busy(found[-1]),
                      *([aim(stage, runs.get((stage, size, AIM_WORKERS), []), one)] if AIM_WORKERS in counts else [])))
    heads = " | ".join(f"{count} worker{'s' if count > 1 else ''}" for count in counts)
    head = f"what | frames | runs | {heads} | busy worker / writer at {most}{' | 8 × one' if AIM_WORKERS in counts else ''}"
    return table(head, lines) + ("\n" + "\n".join(problems) + "\n" if problems else "")
