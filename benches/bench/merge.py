"""`trawl merge` against `mergecap` on the same files, turn by turn: seconds, and the most memory that each took."""

import statistics
import struct
from collections import defaultdict

from . import Failed
from .machine import file_system, folder, measured, note, packages, said, say, trawl
from .results import keep, table

OPTIONS = {
    "runs": (5, "turns of each"),
    "dir": ("/dev/shm", "where inputs and outputs are made"),
    "mib": (256, "size of each of the 8 large files"),
}
FRAME = bytes(300)


def make_files(work, count, size):
    """Frames of 300 bytes, their times interleaved over the files."""
    paths = []
    for file in range(count):
        paths.append(work / f"in{file:02}.pcap")
        with paths[-1].open("wb") as out:
            out.write(struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
            for number in range(size // (16 + len(FRAME))):
                seconds, ns = divmod(number * 1000 + file * 37, 1_000_000_000)
                out.write(struct.pack("<IIII", 1_700_000_000 + seconds, ns, len(FRAME), len(FRAME)) + FRAME)
    return paths


def turns(runs, inputs, binary, work):
    """By program and format: (seconds, KiB) of each run."""
    found = defaultdict(list)
    for run in range(runs):
        note(f"{len(inputs)} files, run {run + 1}")
        for ours, theirs in (("pcap", "nsecpcap"), ("pcapng", "pcapng")):
            out = work / f"out.{ours}"
            for program, command in (("trawl", [binary, "merge", "-o", out, *inputs]), ("mergecap", ["mergecap", "-F", theirs, "-w", out, *inputs])):
                found[program, ours].append(measured(*command))
                out.unlink()
    return found


def rows(what, found):
    for form in ("pcap", "pcapng"):
        (s, kib), (their_s, their_kib) = ([statistics.median(column) for column in zip(*found[program, form])] for program in ("trawl", "mergecap"))
        yield what, form, f"{s:.2f}", f"{their_s:.2f}", f"{their_s / s:.1f}", f"{kib / 1024:.0f}", f"{their_kib / 1024:.0f}"


def run(options):
    packages("wireshark-common")
    binary, found = trawl(), []
    if not said("mergecap", "--version"):
        raise Failed("mergecap does not run")
    with folder(options.dir) as work:
        where = file_system(work)[0]
        for count, mib in ((8, options.mib), (64, 4)):
            what = f"{count} files of {mib} MiB"
            say(f"making {what}")
            inputs = make_files(work, count, mib << 20)
            found += rows(what, turns(options.runs, inputs, binary, work))
            for path in inputs:
                path.unlink()
    keep("merge", "trawl merge against mergecap", f"Medians of {options.runs} runs, turn by turn, on {where}; frames of 300 bytes.",
         table("inputs | output | trawl s | mergecap s | mergecap / trawl | trawl peak MiB | mergecap peak MiB", found),
         options.command, said("mergecap", "--version").splitlines()[0].rstrip("."))
